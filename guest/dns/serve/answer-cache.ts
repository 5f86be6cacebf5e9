import type { DnssecState } from '../../../shared/policy/types.ts';
import { BoundedCache, ownOctets } from '../cache.ts';
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

/** Strings are the least that can be kept: objects and small Buffers take several times their octets. */
interface Entry {
  /** The answer, one octet to a character, with its TTLs as they were. */
  readonly octets: string;
  /** Where those stand, one offset to a character. */
  readonly ttlOffsets: string;
  readonly lease: string | undefined;
}

/** Some 30,000 answers; the validator's own cache holds more. */
export const ANSWERS_MAX_BYTES = 16 * 1024 * 1024;
/** The entry itself, and the heads of its strings. */
const ENTRY_BYTES = 130;
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
    const entry = this.#entries.find(keyOf(question), now);
    if (entry === undefined) return undefined;
    const { octets, ttlOffsets, lease } = entry.value;
    const ttlSeconds = Math.floor(entry.expiresAt - now);
    const answer = Buffer.from(octets, 'latin1');
    for (let index = 0; index < ttlOffsets.length; index += 1) {
      const at = ttlOffsets.charCodeAt(index);
      if (ttlSeconds < answer.readUInt32BE(at)) answer.writeUInt32BE(ttlSeconds, at);
    }
    question.copy(answer, 0, 0, ID_BYTES);
    return {
      octets: answer,
      ttlSeconds,
      lease: lease === undefined ? undefined : readLease(lease, ttlSeconds),
    };
  }

  /** `questionBytes`: where the question section of both ends. */
  remember(question: Buffer, questionBytes: number, { octets, ttlSeconds, lease }: Repeatable): void {
    const rest = question.length - questionBytes;
    if (ttlSeconds < 1 || (rest !== 0 && rest !== OPT_PLAIN_BYTES)) return;
    const entry = {
      octets: octets.toString('latin1'),
      ttlOffsets: String.fromCharCode(...ttlOffsets(octets, questionBytes)),
      lease: lease === undefined ? undefined : leaseText(lease),
    };
    const sizeBytes = octets.length + 2 * entry.ttlOffsets.length + (entry.lease?.length ?? 0) + ENTRY_BYTES;
    this.#entries.set(keyOf(question), entry, this.#now() + ttlSeconds, sizeBytes);
  }
}

/** State, count of addresses, addresses, chain: neither names (their spaces are escaped) nor addresses have a space. */
function leaseText({ dnssec, addresses, chain }: LeaseGrant): string {
  return ownOctets([dnssec, addresses.length, ...addresses, ...chain].join(' '));
}

function readLease(text: string, ttlSeconds: number): LeaseGrant {
  const [dnssec, count, ...rest] = text.split(' ');
  const addresses = rest.slice(0, Number(count));
  const chain = rest.slice(addresses.length);
  return { name: chain[0] ?? '', chain, addresses, ttlSeconds, dnssec: dnssec as DnssecState };
}

function keyOf(question: Buffer): string {
  return question.toString('latin1', ID_BYTES);
}
