import { PosternError } from '../errors.ts';
import type { BoundListener } from './accept.ts';
import { formatTransportAddress, type TransportAddress } from './address.ts';
import { AF_UNIX } from './native/libc.ts';
import { connectSocket } from './socket.ts';
import { bindSocketFile, unixSocketAddress } from './socket-file.ts';
import { streamOver } from './stream.ts';
import type { Stream } from './transport.ts';

type HybridAddress = Extract<TransportAddress, { kind: 'hybrid' }>;

/** `OK 4294967295\n` has 14 bytes; a hypervisor that says more without a newline says something else. */
const ANSWER_MAX_BYTES = 32;
const ANSWER = /^OK \d{1,10}$/;
const NEWLINE = 0x0a;

/** Opens a stream to a port inside the guest (hybrid.md). */
export async function connectHybrid(address: HybridAddress, signal: AbortSignal): Promise<Stream> {
  const { path, port } = address;
  const handle = await connectSocket(AF_UNIX, unixSocketAddress(path), signal);
  const stream = streamOver(handle, { kind: 'hybrid', path });
  try {
    stream.write(`CONNECT ${port}\n`);
    const line = await readLine(stream, address, signal);
    if (!ANSWER.test(line)) throw failed(address, `answered ${JSON.stringify(line)}, not OK and a number`);
    return stream;
  } catch (error) {
    // An error that the stream has yet to report is the same failure again.
    stream.on('error', () => undefined);
    stream.destroy();
    throw error;
  }
}

/** Listens for the streams that the guest opens to this port: the hypervisor connects them to `PATH_PORT`. */
export function bindHybrid(address: HybridAddress): Promise<BoundListener> {
  return bindSocketFile(`${address.path}_${address.port}`);
}

/** The first line, without its newline; what follows it stays in the stream. */
async function readLine(stream: Stream, address: HybridAddress, signal: AbortSignal): Promise<string> {
  let kept = Buffer.alloc(0);
  for (;;) {
    const piece = await readPiece(stream, address, signal);
    const end = piece.indexOf(NEWLINE);
    if (kept.length + (end === -1 ? piece.length : end) >= ANSWER_MAX_BYTES)
      throw failed(address, `said no newline in ${ANSWER_MAX_BYTES} bytes`);
    if (end === -1) {
      kept = Buffer.concat([kept, piece]);
      continue;
    }
    if (end + 1 < piece.length) stream.unshift(piece.subarray(end + 1));
    return Buffer.concat([kept, piece.subarray(0, end)]).toString('latin1');
  }
}

function readPiece(stream: Stream, address: HybridAddress, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const settle = (done: () => void) => {
      stream.off('readable', onReadable).off('end', onEnd).off('error', onError);
      signal.removeEventListener('abort', onAbort);
      done();
    };
    const onReadable = () => {
      const piece: Buffer | null = stream.read();
      if (piece !== null) settle(() => resolve(piece));
    };
    const onEnd = () => settle(() => reject(refused(address)));
    const onError = (error: Error) => settle(() => reject(error));
    const onAbort = () => settle(() => reject(signal.reason));
    signal.throwIfAborted();
    stream.on('readable', onReadable).on('end', onEnd).on('error', onError);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

function refused(address: HybridAddress): PosternError {
  const text = `${formatTransportAddress(address)}: the hypervisor closed: nobody listens on that port of the guest`;
  return new PosternError('ERR_TRANSPORT_REFUSED', text);
}

function failed(address: HybridAddress, what: string): PosternError {
  return new PosternError(
    'ERR_TRANSPORT_FAILED',
    `${formatTransportAddress(address)}: the hypervisor ${what}`,
  );
}
