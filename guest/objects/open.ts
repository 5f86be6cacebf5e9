import type { TransportAddress } from '../../shared/transport/address.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { encodeStreamHeader } from '../../shared/wire/header.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { decodeReply, errorOfStatus, REPLY_BYTES } from '../../shared/wire/reply.ts';

/** The parent looks a grant up; it waits for nothing. */
const REPLY_TIMEOUT_MS = 5_000;
const NO_BODY = Buffer.alloc(0);

/**
 * A stream of kind `object`, proven with the key of a session that is live, and answered with ok.
 * @param flowId even, and in use by no other stream of the session
 * @throws PosternError ERR_FLOW_DENIED without a grant, ERR_SESSION_*, ERR_TRANSPORT_*, ERR_WIRE_*
 */
export async function openObjectStream(
  parent: TransportAddress,
  flowId: number,
  key: Buffer,
): Promise<Stream> {
  const stream = await connectStream(parent);
  // Whoever reads from it hears of the error; without a listener it would end the process.
  stream.on('error', () => {});
  try {
    stream.write(encodeStreamHeader('object', flowId, NO_BODY, key));
    const { status } = decodeReply(await readExactly(stream, REPLY_BYTES, REPLY_TIMEOUT_MS));
    if (status !== 'ok') throw errorOfStatus(status, `the parent answered ${status} for an object stream`);
    return stream;
  } catch (error) {
    stream.destroy();
    throw error;
  }
}
