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

/** net.Socket's own option: reads go into `buffer` without an allocation for each; `callback` may pause by false. */
export interface OnRead {
  readonly buffer: Buffer | (() => Buffer);
  callback(length: number, buffer: Buffer): boolean;
}

type Done = (error?: Error | null) => void;

class PlainStream extends Socket implements Stream {
  readonly peer: Peer;

  constructor(handle: PipeHandle, peer: Peer, onread: OnRead | undefined) {
    const reading = onread === undefined ? {} : { onread, manualStart: true };
    super({ handle, allowHalfOpen: true, ...reading } as unknown as SocketConstructorOpts);
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

/**
 * The stream over an adopted handle, which it owns: destroying the stream closes the descriptor. With `onread` it emits
 * no data, and reads only once it is resumed.
 */
export function streamOver(handle: PipeHandle, peer: Peer, onread?: OnRead): Stream {
  const capped = Number.isFinite(maxWriteBytesOf(peer.kind));
  return capped ? new CappedStream(handle, peer, onread) : new PlainStream(handle, peer, onread);
}
