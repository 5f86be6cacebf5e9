import { isatty } from 'node:tty';
import { destination, type Logger, type LoggerOptions, pino } from 'pino';
import pretty from 'pino-pretty';

export type { Logger };
export type LogFormat = 'auto' | 'json' | 'pretty';
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** Keys whose values never reach a log, wherever they stand in a record's first three levels. */
const SECRET_KEYS = ['key', 'sessionKey', 'secret', 'password', 'passphrase', 'token', 'payload', 'proof'];

/**
 * The process's logger, written to standard error (standard output belongs to the command's result).
 * `auto`: for a person on a terminal, one JSON object a line elsewhere.
 */
export function createLogger(name: string, format: LogFormat = 'auto', level: LogLevel = 'info'): Logger {
  const options: LoggerOptions = {
    name,
    level,
    base: { name },
    redact: { paths: SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]), censor: '[redacted]' },
    formatters: { level: (label) => ({ level: label }) },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
  };
  const forTerminal = format === 'pretty' || (format === 'auto' && isatty(2));
  if (!forTerminal) return pino(options, destination({ fd: 2, sync: true }));
  const stream = pretty({
    destination: 2,
    sync: true,
    colorize: isatty(2),
    ignore: 'pid,hostname,name',
    translateTime: 'SYS:HH:MM:ss.l',
    messageFormat: '{name}: {msg}',
    singleLine: true,
  });
  return pino(options, stream);
}

/** Distinct keys that one rate limiter remembers; past it the oldest is forgotten (and may be logged early). */
const RATE_LIMIT_KEYS = 1024;

/**
 * Says a repeated thing once a window: `allow(key)` is undefined while the key was already said in this window,
 * else the number of times it was left unsaid since.
 */
export class LogRateLimiter {
  readonly #windowMs: number;
  readonly #now: () => number;
  readonly #seen = new Map<string, { since: number; suppressed: number }>();

  constructor(windowMs = 10_000, now: () => number = () => performance.now()) {
    this.#windowMs = windowMs;
    this.#now = now;
  }

  allow(key: string): number | undefined {
    const now = this.#now();
    const entry = this.#seen.get(key);
    if (entry !== undefined && now - entry.since < this.#windowMs) {
      entry.suppressed += 1;
      return undefined;
    }
    this.#seen.delete(key);
    if (this.#seen.size >= RATE_LIMIT_KEYS) {
      const oldest = this.#seen.keys().next();
      if (!oldest.done) this.#seen.delete(oldest.value);
    }
    this.#seen.set(key, { since: now, suppressed: 0 });
    return entry?.suppressed ?? 0;
  }
}
