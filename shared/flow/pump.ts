import { Socket } from 'node:net';
import {
  BULK_READ_BYTES,
  borrowBulkBuffer,
  returnBulkBuffer,
  SHARED_READ_BYTES,
  sharedReadBuffer,
} from './buffers.ts';

/** A flow reads this much before the other flows of the loop get their turn: bounds what a small message waits. */
const TURN_BYTES = 256 * 1024;
/** A read below this gives the bulk buffer back: the flow is no longer limited by its reads. */
const BULK_LEAVE_BYTES = 8 * 1024;

/**
 * After an EOF nothing watches the socket for errors, so a reset or a keep-alive's verdict would stay unseen until
 * the next write, which may never come. Asking the kernel this often bounds how long such a flow is kept.
 */
const HALF_CLOSED_CHECK_MS = 2_000;

/** A libuv stream handle; private to Node, see detachHandle. */
export interface Handle {
  readonly fd: number;
  /** Node's note that it has started reading; it stays set when an EOF stops the reading. */
  reading: boolean;
  readStop(): number;
}
interface WithHandle {
  _handle: Handle | null;
}

/** What a pump tells its flow. */
export interface PumpOwner {
  /** Read so much: for how many ms it must stop reading; 0 to go on. */
  onBytes(length: number): number;
  /** All that was read is written, and the next read has not begun. */
  onRest(): void;
}

const NO_BYTES = Buffer.alloc(0);
const halfClosed = new Set<Pump>();
let halfClosedTimer: NodeJS.Timeout | undefined;

function checkHalfClosed(): void {
  for (const pump of halfClosed) pump.checkHalfClosed();
  if (halfClosed.size === 0) {
    clearInterval(halfClosedTimer);
    halfClosedTimer = undefined;
  }
}

/** Pumps that had their turn, to be resumed together after the poll phase. */
let waiting: Pump[] = [];

function resumeWaiting(): void {
  const ready = waiting;
  waiting = [];
  for (const pump of ready) pump.resume();
}

/**
 * One end of a flow. It takes over the connected socket's handle into a socket that reads into pooled buffers
 * (net.Socket's `onread`, which exists only at construction), and writes what it reads to `sink`.
 */
export class Pump {
  readonly socket: Socket;
  /** What was read before the takeover; to be written to the sink first. */
  readonly early: Buffer | null;
  #sink: Socket | undefined;
  #maxWriteBytes = 0;
  readonly #owner: PumpOwner;
  #bulk: Buffer | undefined;
  #turnBytes = 0;
  #discarding = false;
  /** The sink's kernel buffer was full: reading goes on when its last write is done. */
  #blocked = false;
  /** The handle, while another thread reads and writes the socket. */
  #parked: Handle | undefined;
  readonly #onWritten = (): void => {
    if (this.#blocked && this.#sink?.writableLength === 0) {
      this.#blocked = false;
      this.#owner.onRest();
      this.resume();
    }
  };

  constructor(origin: Socket, owner: PumpOwner) {
    this.early = origin.read() as Buffer | null;
    this.#owner = owner;
    this.socket = new Socket({
      handle: detachHandle(origin),
      allowHalfOpen: true,
      manualStart: true,
      onread: {
        buffer: () => this.#buffer(),
        callback: (length: number, buffer: Uint8Array) => this.#onRead(length, buffer as Buffer),
      },
    } as unknown as ConstructorParameters<typeof Socket>[0]);
  }

  /** `maxWriteBytes`: the longest single write that the sink's transport is safe with. */
  start(sink: Socket, maxWriteBytes: number): void {
    this.#sink = sink;
    this.#maxWriteBytes = maxWriteBytes;
    if (this.early !== null) {
      this.#owner.onBytes(this.early.length);
      this.#blocked = true;
      this.#write(sink, this.early);
    } else {
      this.resume();
    }
  }

  #write(sink: Socket, bytes: Buffer): void {
    const capBytes = this.#maxWriteBytes;
    for (let offset = 0; offset < bytes.length; offset += capBytes) {
      sink.write(bytes.subarray(offset, offset + capBytes), this.#onWritten);
    }
  }

  resume(): void {
    this.#turnBytes = 0;
    if (this.#parked !== undefined) return;
    if (!this.socket.destroyed && !this.socket.readableEnded) this.socket.resume();
  }

  /** Reads on, to see the end come, and throws the bytes away. */
  discard(): void {
    this.#discarding = true;
    this.resume();
  }

  /** The socket's descriptor; undefined while what was read from it is not all written. */
  get restingFd(): number | undefined {
    const sink = this.#sink;
    if (sink === undefined || sink.destroyed || this.#blocked || sink.writableLength > 0) return undefined;
    // A shutdown takes a turn of the loop.
    if (sink.writableEnded && !sink.writableFinished) return undefined;
    return (this.socket as unknown as WithHandle)._handle?.fd;
  }

  /** Leaves the resting socket to another thread. Without its handle nothing that Node has planned for it can touch it. */
  park(): void {
    this.#parked = takeHandle(this.socket);
    this.release();
  }

  /** The socket is this thread's again; reading goes on when it is resumed. */
  unpark(): void {
    if (this.#parked !== undefined) (this.socket as unknown as WithHandle)._handle = this.#parked;
    this.#parked = undefined;
  }

  /** The socket's EOF has come: watch it for what the event loop does not tell. */
  watchHalfClosed(): void {
    halfClosed.add(this);
    halfClosedTimer ??= setInterval(checkHalfClosed, HALF_CLOSED_CHECK_MS).unref();
  }

  /** The kernel answers a write of no bytes with the error that has come in the meantime, and sends nothing. */
  checkHalfClosed(): void {
    const { socket } = this;
    if (socket.destroyed || socket.writableEnded) halfClosed.delete(this);
    else if (this.#parked === undefined && socket.writableLength === 0) socket.write(NO_BYTES);
  }

  /** Gives the bulk buffer back. Called when both sockets are closed, so that no write refers to it. */
  release(): void {
    if (this.#bulk !== undefined) returnBulkBuffer(this.#bulk);
    this.#bulk = undefined;
  }

  #buffer(): Buffer {
    return this.#bulk ?? sharedReadBuffer();
  }

  /** Returns false to stop reading. */
  #onRead(length: number, buffer: Buffer): boolean {
    const sink = this.#sink;
    if (this.#discarding || sink === undefined || sink.destroyed || sink.writableEnded) return true;
    const pauseMs = this.#owner.onBytes(length);
    const borrowed = buffer === this.#bulk;
    const piece = buffer.subarray(0, length);
    this.#write(sink, borrowed ? piece : Buffer.from(piece));
    const taken = sink.writableLength === 0;
    if (!borrowed && length === SHARED_READ_BYTES) this.#bulk = borrowBulkBuffer();
    // The kernel took all of it, so nothing refers to the buffer any more.
    if (borrowed && taken && length < BULK_LEAVE_BYTES) this.release();
    if (pauseMs > 0) {
      setTimeout(() => this.resume(), pauseMs).unref();
      return false;
    }
    this.#blocked = !taken;
    if (taken) this.#owner.onRest();
    return taken && this.#parked === undefined && this.#hasTurn(length);
  }

  #hasTurn(length: number): boolean {
    this.#turnBytes += length;
    if (this.#turnBytes < TURN_BYTES) {
      // A read that does not fill its buffer ends the turn by itself: libuv goes on only after full ones.
      if (length < (this.#bulk === undefined ? SHARED_READ_BYTES : BULK_READ_BYTES)) this.#turnBytes = 0;
      return true;
    }
    if (waiting.length === 0) setImmediate(resumeWaiting);
    waiting.push(this);
    return false;
  }
}

/** Leaves the origin without a handle: it can neither read nor close what it no longer has. */
export function detachHandle(origin: Socket): Handle {
  const handle = takeHandle(origin);
  // What is left of the origin: its listeners, its timer and its place in its server's count.
  origin.removeAllListeners();
  origin.destroy();
  return handle;
}

function takeHandle(socket: Socket): Handle {
  const internal = socket as unknown as WithHandle;
  const handle = internal._handle;
  if (handle === null) throw new Error('a socket without a handle cannot be spliced');
  internal._handle = null;
  // An EOF that came before is told again to whoever starts reading, and only then.
  handle.readStop();
  handle.reading = false;
  return handle;
}
