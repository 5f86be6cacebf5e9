import { Socket, type SocketConstructorOpts } from 'node:net';
import type { Peer } from './address.ts';
import type { PipeHandle } from './native/handle.ts';
import type { Stream } from './transport.ts';

/**
 * The largest single `write` on a vsock cable. Guests on several kernels lose or corrupt a packet that carries
 * more than 32 KiB (Firecracker issue 5475, Cloud Hypervisor issue 7672); the last KiB is room for their headers.
 */
export const VSOCK_WRITE_MAX_BYTES = 31 * 1024;

/** How many bytes one write system call towards such a peer may carry. */
export function maxWriteBytesOf(kind: Peer['kind']): number {
  return kind === 'vsock' || kind === 'hybrid' ? VSOCK_WRITE_MAX_BYTES : Number.POSITIVE_INFINITY;
}

/** What Node's streams say for the encoding of a piece that is no string; its types do not know the word. */
const BYTES = 'buffer' as BufferEncoding;

type Done = (error?: Error | null) => void;

class PlainStream extends Socket implements Stream {
  readonly peer: Peer;

  constructor(handle: PipeHandle, peer: Peer) {
    const options: { handle: unknown; allowHalfOpen: true } = { handle, allowHalfOpen: true };
    super(options as SocketConstructorOpts);
    this.peer = peer;
  }
}

/** Never hands the kernel more than VSOCK_WRITE_MAX_BYTES at once, however large the pieces that are written. */
class CappedStream extends PlainStream {
  override _write(chunk: Buffer | string, encoding: BufferEncoding, done: Done): void {
    this._writev([{ chunk, encoding }], done);
  }

  /** Node would gather all queued pieces into one `writev`; here each goes by itself. */
  override _writev(pieces: { chunk: Buffer | string; encoding: BufferEncoding }[], done: Done): void {
    const parts = cut(pieces);
    let running = false;
    let ready = true;
    // A write that the kernel takes at once calls back before it returns: the loop keeps the stack flat.
    const advance = (error?: Error | null) => {
      if (error) return done(error);
      ready = true;
      if (running) return;
      running = true;
      while (ready) {
        const part = parts.next();
        if (part.done) return done();
        ready = false;
        super._write(part.value, BYTES, advance);
      }
      running = false;
    };
    advance();
  }
}

function* cut(pieces: { chunk: Buffer | string; encoding: BufferEncoding }[]): Generator<Buffer, void> {
  for (const { chunk, encoding } of pieces) {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk;
    for (let offset = 0; offset < bytes.length; offset += VSOCK_WRITE_MAX_BYTES)
      yield bytes.subarray(offset, offset + VSOCK_WRITE_MAX_BYTES);
  }
}

/** The stream over an adopted handle, which it owns: destroying the stream closes the descriptor. */
export function streamOver(handle: PipeHandle, peer: Peer): Stream {
  const capped = Number.isFinite(maxWriteBytesOf(peer.kind));
  return capped ? new CappedStream(handle, peer) : new PlainStream(handle, peer);
}
