import { isPosternError } from '../../shared/errors.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, REPLY_BYTES, type ReplyStatus } from '../../shared/wire/reply.ts';

/** A guest on the same host answers in microseconds; one that does not within this time is not there. */
export const INBOUND_CONNECT_TIMEOUT_MS = 5_000;
/** The agent connects to its workload first, which may be slow to accept. */
export const INBOUND_REPLY_TIMEOUT_MS = 10_000;

/** The stream, when the guest said ok; else why not, in words of a closed set. */
export type Knock =
  | { readonly stream: Stream }
  | {
      readonly stream?: undefined;
      readonly outcome: Exclude<ReplyStatus, 'ok'> | 'no-agent' | 'cancelled';
      readonly reason: string;
    };

/** Opens a stream to the guest's agent and waits for its answer. `signal` gives up; nothing is left open then. */
export async function knock(agent: TransportAddress, header: Buffer, signal: AbortSignal): Promise<Knock> {
  let stream: Stream | undefined;
  const giveUp = (): void => {
    stream?.destroy();
  };
  signal.addEventListener('abort', giveUp);
  try {
    stream = await connectStream(agent, { signal, timeoutMs: INBOUND_CONNECT_TIMEOUT_MS });
    stream.on('error', () => {});
    if (signal.aborted) giveUp();
    stream.write(header);
    const { status } = decodeReply(await readExactly(stream, REPLY_BYTES, INBOUND_REPLY_TIMEOUT_MS));
    if (status === 'ok' && !signal.aborted) return { stream };
    stream.destroy();
    if (status === 'ok') return { outcome: 'cancelled', reason: 'the client is gone' };
    return { outcome: status, reason: `the guest answered ${status}` };
  } catch (error) {
    if (!isPosternError(error)) throw error;
    stream?.destroy();
    if (signal.aborted) return { outcome: 'cancelled', reason: 'the client or the session is gone' };
    return { outcome: 'no-agent', reason: `the agent’s stream: ${error.code}` };
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}
