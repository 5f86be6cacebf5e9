import { randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { type Clock, SYSTEM_CLOCK } from '../../shared/objects/clock.ts';
import type { Random } from '../../shared/objects/random.ts';

/** What the engine takes from the world besides the store and the anchor; a simulation gives all of it from a seed. */
export interface VolumeEnvironment {
  readonly clock: Clock;
  /** Wall time in milliseconds, only ever shown to people. */
  dateMs(): number;
  /** Secret bytes. */
  random(length: number): Buffer;
  /** Spreads retries; not secret. */
  readonly jitter: Random;
  /** Lets other work of the process run, between pieces of long computations. */
  pause(): Promise<void>;
  readonly log: VolumeLog;
}

/** The part of a pino logger that the engine uses. */
export interface VolumeLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export function systemEnvironment(log: VolumeLog): VolumeEnvironment {
  return {
    clock: SYSTEM_CLOCK,
    dateMs: () => Date.now(),
    random: (length) => randomBytes(length),
    jitter: Math.random,
    pause: () => setImmediate(),
    log,
  };
}
