import { PosternError } from '../../shared/errors.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import {
  type ControlFrame,
  encodeHello,
  FRAME_HEADER_BYTES,
  FrameDecoder,
  PROTOCOL_MAX,
  PROTOCOL_MIN,
} from '../../shared/wire/control.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, errorOfStatus, REPLY_BYTES } from '../../shared/wire/reply.ts';

/** A parent that is alive answers in milliseconds, a busy one in a second. */
export const WELCOME_TIMEOUT_MS = 10_000;
/** Where the payload of WELCOME ends: version, three reserved bytes, capabilities, keep-alive. */
const WELCOME_BYTES = 12;
/** The first byte of a reply; no frame has this type. */
const REPLY_MARK = 0x52;

export type Welcome = Extract<ControlFrame, { type: 'welcome' }>;

export interface RegisterOptions {
  readonly parent: TransportAddress;
  /** KEY_BYTES. */
  readonly key: Buffer;
  /** Bits of CAPABILITIES. */
  readonly capabilities: number;
  readonly agent: string;
  readonly signal: AbortSignal;
  readonly welcomeTimeoutMs?: number;
}

/**
 * Opens the control stream and says HELLO; resolves with the stream right behind WELCOME.
 * @throws PosternError ERR_TRANSPORT_*, ERR_WIRE_*, ERR_SESSION_TAKEN, ERR_SESSION_UNKNOWN_GUEST, …
 */
export async function register(options: RegisterOptions): Promise<{ stream: Stream; welcome: Welcome }> {
  const stream = await connectStream(options.parent, { signal: options.signal });
  const onAbort = (): void => {
    stream.destroy();
  };
  options.signal.addEventListener('abort', onAbort, { once: true });
  // Whoever waits on the stream hears of the error; without a listener it would end the process.
  stream.on('error', () => {});
  try {
    const { key, capabilities, agent } = options;
    const hello = encodeHello({
      minVersion: PROTOCOL_MIN,
      maxVersion: PROTOCOL_MAX,
      capabilities,
      key,
      agent,
    });
    stream.write(encodeStreamHeader('control', 0, hello, key));
    const welcome = await readWelcome(stream, options.welcomeTimeoutMs ?? WELCOME_TIMEOUT_MS);
    return { stream, welcome };
  } catch (error) {
    stream.destroy();
    throw error;
  } finally {
    options.signal.removeEventListener('abort', onAbort);
  }
}

async function readWelcome(stream: Stream, timeoutMs: number): Promise<Welcome> {
  const deadline = performance.now() + timeoutMs;
  const first = await readExactly(stream, FRAME_HEADER_BYTES, timeoutMs);
  if (first.readUInt8(0) === REPLY_MARK) throw refusal(first.subarray(0, REPLY_BYTES));
  if (first.readUInt16BE(2) !== WELCOME_BYTES) {
    throw new PosternError('ERR_WIRE_MALFORMED', `the parent answered HELLO with ${first.toString('hex')}`);
  }
  const rest = await readExactly(stream, WELCOME_BYTES, Math.max(1, deadline - performance.now()));
  const [frame] = new FrameDecoder().push(Buffer.concat([first, rest]));
  if (frame?.type !== 'welcome') {
    throw new PosternError('ERR_WIRE_MALFORMED', 'the parent did not answer HELLO with WELCOME');
  }
  if (frame.version < PROTOCOL_MIN || frame.version > PROTOCOL_MAX) {
    throw new PosternError(
      'ERR_WIRE_VERSION',
      `the parent chose version ${frame.version}, which was not offered`,
    );
  }
  return frame;
}

function refusal(bytes: Buffer): PosternError {
  const { status } = decodeReply(bytes);
  if (status === 'ok')
    return new PosternError('ERR_WIRE_MALFORMED', 'the parent answered HELLO with a flow reply');
  return errorOfStatus(status, `the parent refused the session: ${status}`);
}
