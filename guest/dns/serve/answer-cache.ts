import { BoundedCache } from '../cache.ts';
import type { LeaseGrant } from '../leases.ts';
import { HEADER_BYTES } from '../message.ts';
import { NAME_MAX_BYTES } from '../name.ts';
import { ttlOffsets } from './encode-answer.ts';

/** An answer whose octets may be sent again, and the lease that goes out with it. */
export interface Repeatable {
  readonly octets: Buffer;
  readonly ttlSeconds: number;
  readonly lease: LeaseGrant | undefined;
}

interface Entry {
  readonly octets: Buffer;
  /** Where its TTLs stand, and what they were. */
  readonly ttls: readonly (readonly [offset: number, seconds: number])[];
  readonly lease: LeaseGrant | undefined;
  readonly expiresAt: number;
  /** What the TTLs in the octets say at most. */
  writtenSeconds: number;
}

/** Some 60,000 answers; the validator's own cache holds more. */
const ANSWERS_MAX_BYTES = 16 * 1024 * 1024;
/** The entry, its key and its lease around the octets. */
const ENTRY_OVERHEAD_BYTES = 200;
const ID_BYTES = 2;
const OPT_PLAIN_BYTES = 11;
/** One question and an OPT record without options: what differs with each question would only fill the cache. */
const QUESTION_MAX_BYTES = HEADER_BYTES + NAME_MAX_BYTES + 4 + OPT_PLAIN_BYTES;

/**
 * Datagrams by the octets of their question, its id apart: what was answered once is answered again without being read.
 * It is of one policy and one validator, and keeps nothing longer than the validator does.
 */
export class AnswerCache {
  readonly #entries = new BoundedCache<Entry>(ANSWERS_MAX_BYTES);
  readonly #now: () => number;

  /** `monotonic`: seconds that never go back. */
  constructor(monotonic: () => number = () => performance.now() / 1000) {
    this.#now = monotonic;
  }

  /** The answer with the id of `question` and the TTLs of now, for the caller to keep. */
  recall(question: Buffer): Repeatable | undefined {
    if (question.length > QUESTION_MAX_BYTES) return undefined;
    const now = this.#now();
    const entry = this.#entries.get(keyOf(question), now);
    if (entry === undefined) return undefined;
    const { octets, lease } = entry;
    const ttlSeconds = Math.floor(entry.expiresAt - now);
    if (ttlSeconds !== entry.writtenSeconds) {
      for (const [offset, seconds] of entry.ttls) octets.writeUInt32BE(Math.min(seconds, ttlSeconds), offset);
      entry.writtenSeconds = ttlSeconds;
    }
    const answer = Buffer.from(octets);
    question.copy(answer, 0, 0, ID_BYTES);
    return { octets: answer, ttlSeconds, lease };
  }

  /** `questionBytes`: where the question section of both ends. */
  remember(question: Buffer, questionBytes: number, { octets, ttlSeconds, lease }: Repeatable): void {
    const rest = question.length - questionBytes;
    if (ttlSeconds < 1 || (rest !== 0 && rest !== OPT_PLAIN_BYTES)) return;
    const ttls = ttlOffsets(octets, questionBytes).map((at) => [at, octets.readUInt32BE(at)] as const);
    const expiresAt = this.#now() + ttlSeconds;
    const entry = { octets: Buffer.from(octets), ttls, lease, expiresAt, writtenSeconds: -1 };
    const sizeBytes = question.length + octets.length + ENTRY_OVERHEAD_BYTES;
    this.#entries.set(keyOf(question), entry, expiresAt, sizeBytes);
  }
}

function keyOf(question: Buffer): string {
  return question.toString('latin1', ID_BYTES);
}
