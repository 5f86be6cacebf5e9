import { randomInt } from 'node:crypto';
import { isPosternError, PosternError } from '../errors.ts';
import type { Stream } from '../transport/transport.ts';
import { type ControlFrame, encodeFrame, FrameDecoder } from '../wire/control.ts';

/** Silence of this many keep-alive periods means that the peer is gone. */
export const KEEP_ALIVE_MISSES = 3;
/** Bytes of unsent control frames after which the peer is taken for stuck: 4,096 RESETs. */
export const CONTROL_QUEUE_MAX_BYTES = 48 * 1024;

export interface ControlChannelOptions {
  readonly keepAliveMs: number;
  /** Every frame but ping and pong. A throw of ERR_WIRE_* ends the channel with that error. */
  onFrame(frame: ControlFrame): void;
  /** Called once: the channel has ended, by either side, silence or malformed bytes. */
  onLost(reason: PosternError): void;
}

/**
 * The control stream after its header: frames both ways and a keep-alive. Both sides ping on their own clock, so
 * each finds out by itself that the other has stopped.
 */
export class ControlChannel {
  readonly #stream: Stream;
  readonly #options: ControlChannelOptions;
  readonly #decoder = new FrameDecoder();
  readonly #timer: NodeJS.Timeout;
  #heardAt = performance.now();
  #lost = false;

  constructor(stream: Stream, options: ControlChannelOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#timer = setInterval(() => this.#keepAlive(), options.keepAliveMs);
    stream.on('data', (piece: Buffer) => this.#receive(piece));
    stream.on('end', () => this.#lose('the peer closed the control stream'));
    stream.on('close', () => this.#lose('the control stream closed'));
    stream.on('error', (error) => this.#lose(`the control stream failed: ${error.message}`));
    stream.resume();
  }

  get live(): boolean {
    return !this.#lost;
  }

  /** Queues one frame; a peer that does not read for CONTROL_QUEUE_MAX_BYTES loses the session. */
  send(frame: ControlFrame): void {
    if (this.#lost) return;
    this.#stream.write(encodeFrame(frame));
    if (this.#stream.writableLength > CONTROL_QUEUE_MAX_BYTES)
      this.#lose('the peer does not read its control stream');
  }

  /** Ends the channel from this side; `onLost` is told `why`. */
  close(why: string): void {
    this.#lose(why);
  }

  #receive(piece: Buffer): void {
    this.#heardAt = performance.now();
    try {
      for (const frame of this.#decoder.push(piece)) {
        if (this.#lost) return;
        if (frame.type === 'ping') this.send({ type: 'pong', token: frame.token });
        else if (frame.type !== 'pong') this.#options.onFrame(frame);
      }
    } catch (error) {
      if (!isPosternError(error)) throw error;
      this.#lose(error.message, error);
    }
  }

  #keepAlive(): void {
    const silentMs = performance.now() - this.#heardAt;
    if (silentMs > this.#options.keepAliveMs * KEEP_ALIVE_MISSES) {
      this.#lose(`the peer was silent for ${Math.round(silentMs)} ms`);
    } else {
      this.send({ type: 'ping', token: randomInt(2 ** 32) });
    }
  }

  #lose(why: string, cause?: PosternError): void {
    if (this.#lost) return;
    this.#lost = true;
    clearInterval(this.#timer);
    this.#stream.destroy();
    this.#options.onLost(new PosternError('ERR_SESSION_LOST', why, cause === undefined ? {} : { cause }));
  }
}
