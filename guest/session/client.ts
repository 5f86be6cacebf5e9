import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, isPosternError, PosternError } from '../../shared/errors.ts';
import { ControlChannel } from '../../shared/session/channel.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import type { ControlFrame } from '../../shared/wire/control.ts';
import { retryDelayMs } from './backoff.ts';
import { type RegisterOptions, register, type Welcome } from './register.ts';

/** The parent proposes the period; outside these bounds it would busy the guest, or find out too late. */
const KEEP_ALIVE_MIN_MS = 100;
const KEEP_ALIVE_MAX_MS = 30_000;
/** A session that lived this long ended for a new reason: the pace of retries starts again. */
const STABLE_AFTER_MS = 10_000;
/** A parent that drains says how long; one that says a year and stays is left after this. */
const GOAWAY_MAX_MS = 300_000;
/** How long over its own deadline a draining parent may take to close. */
const GOAWAY_GRACE_MS = 5_000;

/** A registration with the parent that is, or was, live. */
export interface LiveSession {
  readonly key: Buffer;
  readonly welcome: Welcome;
  readonly live: boolean;
  send(frame: ControlFrame): void;
}

export type SessionState =
  | { readonly phase: 'connecting'; readonly attempt: number }
  | { readonly phase: 'up'; readonly since: Date; readonly version: number; readonly capabilities: number }
  | { readonly phase: 'draining'; readonly since: Date; readonly deadlineMs: number }
  | { readonly phase: 'waiting'; readonly code: ErrorCode; readonly reason: string; readonly retryMs: number }
  | { readonly phase: 'closed' };

export interface SessionClientOptions {
  readonly parent: TransportAddress;
  readonly key: Buffer;
  readonly capabilities: number;
  readonly agent: string;
  readonly welcomeTimeoutMs?: number;
  /** Told of every change, in order; the owner logs. */
  onState(state: SessionState): void;
  /** The session ended: its flows have no peer any more. Comes before the state that follows. */
  onLost(reason: PosternError): void;
  /** The parent's side of this flow was reset. */
  onReset(flowId: number): void;
}

/**
 * Keeps one session with the parent: registers, holds the control stream, and registers again with the same key
 * when it is lost, until `close`. See session.md.
 */
export class SessionClient {
  readonly #options: SessionClientOptions;
  readonly #stop = new AbortController();
  readonly #waiters = new Set<() => void>();
  #state: SessionState = { phase: 'connecting', attempt: 0 };
  #session: LiveSession | undefined;
  #channel: ControlChannel | undefined;
  #running: Promise<void> | undefined;

  constructor(options: SessionClientOptions) {
    this.#options = options;
  }

  get state(): SessionState {
    return this.#state;
  }

  /** The session that takes new flows now, if there is one. */
  get current(): LiveSession | undefined {
    return this.#state.phase === 'up' ? this.#session : undefined;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /**
   * The session, as soon as it is up.
   * @throws PosternError ERR_SESSION_LOST when it is not up within `timeoutMs`, or the client is closed.
   */
  async ready(timeoutMs: number, signal?: AbortSignal): Promise<LiveSession> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (this.current !== undefined) return this.current;
      const leftMs = deadline - performance.now();
      if (this.#state.phase === 'closed' || leftMs <= 0 || signal?.aborted) throw this.#notUp();
      await this.#changed(leftMs, signal);
    }
  }

  /** Says goodbye and stops. Flows of the session are the caller's to end before. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#channel?.close('the agent stops');
    await this.#running;
    this.#setState({ phase: 'closed' });
  }

  async #run(): Promise<void> {
    for (let attempt = 0; !this.#stop.signal.aborted; attempt += 1) {
      this.#setState({ phase: 'connecting', attempt });
      const startedAt = performance.now();
      const reason = await this.#holdOne();
      if (this.#stop.signal.aborted) return;
      if (performance.now() - startedAt > STABLE_AFTER_MS) attempt = 0;
      const retryMs = retryDelayMs(attempt, reason.code);
      this.#setState({ phase: 'waiting', code: reason.code, reason: reason.message, retryMs });
      await sleep(retryMs, undefined, { signal: this.#stop.signal }).catch(() => {});
    }
  }

  /** One session from HELLO to its end; resolves with why it ended, or did not begin. */
  async #holdOne(): Promise<PosternError> {
    try {
      const options: RegisterOptions = { ...this.#options, signal: this.#stop.signal };
      const { stream, welcome } = await register(options);
      const reason = await this.#hold(stream, welcome);
      this.#options.onLost(reason);
      return reason;
    } catch (error) {
      if (!isPosternError(error)) throw error;
      return error;
    }
  }

  #hold(stream: Stream, welcome: Welcome): Promise<PosternError> {
    return new Promise((resolve) => {
      let drainTimer: NodeJS.Timeout | undefined;
      const channel = new ControlChannel(stream, {
        keepAliveMs: Math.min(KEEP_ALIVE_MAX_MS, Math.max(KEEP_ALIVE_MIN_MS, welcome.keepAliveMs)),
        onFrame: (frame) => {
          if (frame.type === 'reset') this.#options.onReset(frame.flowId);
          else if (frame.type === 'goaway') drainTimer ??= this.#drain(channel, frame.deadlineMs);
          else throw new PosternError('ERR_WIRE_MALFORMED', `a second ${frame.type} on the control stream`);
        },
        onLost: (reason) => {
          clearTimeout(drainTimer);
          this.#session = undefined;
          this.#channel = undefined;
          resolve(reason);
        },
      });
      this.#channel = channel;
      this.#session = {
        key: this.#options.key,
        welcome,
        get live() {
          return channel.live;
        },
        send: (frame) => channel.send(frame),
      };
      const { version, capabilities } = welcome;
      this.#setState({ phase: 'up', since: new Date(), version, capabilities });
    });
  }

  #drain(channel: ControlChannel, deadlineMs: number): NodeJS.Timeout {
    const boundedMs = Math.min(deadlineMs, GOAWAY_MAX_MS);
    this.#setState({ phase: 'draining', since: new Date(), deadlineMs: boundedMs });
    return setTimeout(() => channel.close('the parent drained'), boundedMs + GOAWAY_GRACE_MS);
  }

  #changed(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#waiters.add(done);
      signal?.addEventListener('abort', done);
    });
  }

  #setState(state: SessionState): void {
    this.#state = state;
    this.#options.onState(state);
    for (const wake of [...this.#waiters]) wake();
  }

  #notUp(): PosternError {
    const state = this.#state;
    const why = state.phase === 'waiting' ? `: ${state.reason}` : '';
    return new PosternError('ERR_SESSION_LOST', `there is no session with the parent (${state.phase}${why})`);
  }
}
