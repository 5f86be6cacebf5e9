import { type Answer, type DecodedPacket, decode, type RecordType } from 'dns-packet';
import ipaddr from 'ipaddr.js';
import { PosternError } from '../../shared/errors.ts';
import type { ResolvedAddress } from './resolver.ts';

/** The same limit as of validating resolvers; real chains have two or three links. */
export const CHAIN_MAX_LINKS = 12;
/** More addresses than an OPEN carries are of no use; both families get this many. */
export const ADDRESSES_MAX_COUNT = 16;
const CLASS_AND_RCODE_OK = 'NOERROR';

export type AddressType = Extract<RecordType, 'A' | 'AAAA'>;

export interface Question {
  readonly id: number;
  /** Normalised. */
  readonly name: string;
  readonly type: AddressType;
}

export type ParsedAnswer =
  | {
      readonly kind: 'addresses';
      readonly addresses: readonly ResolvedAddress[];
      readonly chain: readonly string[];
    }
  /** The name, or its addresses of this family, do not exist. */
  | { readonly kind: 'none' }
  /** The server could not, or would not, answer. */
  | { readonly kind: 'failed'; readonly rcode: string };

/**
 * Reads one answer message. Only records on the CNAME chain from the question count; others are not looked at.
 * @throws PosternError ERR_WIRE_MALFORMED for bytes that are no answer to this question.
 */
export function parseAnswer(message: Buffer, question: Question): ParsedAnswer {
  const packet = decodePacket(message);
  const [asked] = packet.questions ?? [];
  const answersIt =
    packet.type === 'response' &&
    packet.id === question.id &&
    packet.questions?.length === 1 &&
    asked?.class === 'IN' &&
    asked.type === question.type &&
    lower(asked.name) === question.name;
  if (!answersIt)
    throw new PosternError('ERR_WIRE_MALFORMED', `an answer to another question than ${question.name}`);
  const rcode = rcodeOf(packet);
  if (rcode === 'NXDOMAIN') return { kind: 'none' };
  if (rcode !== CLASS_AND_RCODE_OK || packet.flag_tc) return { kind: 'failed', rcode };
  return followChain(packet.answers ?? [], question);
}

function decodePacket(message: Buffer): DecodedPacket {
  try {
    return decode(message);
  } catch (cause) {
    // dns-packet throws plain errors of several kinds for bytes that are no message.
    throw new PosternError('ERR_WIRE_MALFORMED', 'a DNS message cannot be read', { cause });
  }
}

/** dns-packet decodes it, but its types say so only of the raw flags. */
function rcodeOf(packet: DecodedPacket): string {
  return 'rcode' in packet && typeof packet.rcode === 'string'
    ? packet.rcode
    : `RCODE ${(packet.flags ?? 0) & 15}`;
}

function followChain(answers: readonly Answer[], question: Question): ParsedAnswer {
  const chain = [question.name];
  let owner = question.name;
  let chainTtlSeconds = Number.POSITIVE_INFINITY;
  for (let link = 0; link <= CHAIN_MAX_LINKS; link += 1) {
    const addresses = addressesOf(answers, owner, question.type, chainTtlSeconds);
    if (addresses.length > 0) return { kind: 'addresses', addresses, chain };
    const alias = answers.find(
      (record) => record.type === 'CNAME' && isIn(record) && lower(record.name) === owner,
    );
    if (alias?.type !== 'CNAME') return { kind: 'none' };
    owner = lower(alias.data);
    if (chain.includes(owner)) return { kind: 'failed', rcode: 'CNAME loop' };
    chain.push(owner);
    chainTtlSeconds = Math.min(chainTtlSeconds, alias.ttl ?? 0);
  }
  return { kind: 'failed', rcode: `CNAME chain over ${CHAIN_MAX_LINKS} links` };
}

function addressesOf(
  answers: readonly Answer[],
  owner: string,
  type: AddressType,
  chainTtlSeconds: number,
): ResolvedAddress[] {
  const found: ResolvedAddress[] = [];
  for (const record of answers) {
    if (record.type !== type || !isIn(record) || lower(record.name) !== owner) continue;
    if (typeof record.data !== 'string' || !ipaddr.isValid(record.data)) continue;
    const address = ipaddr.parse(record.data).toString();
    found.push({ address, ttlSeconds: Math.min(record.ttl ?? 0, chainTtlSeconds) });
    if (found.length === ADDRESSES_MAX_COUNT) break;
  }
  return found;
}

function isIn(record: Answer): boolean {
  return 'class' in record && record.class === 'IN';
}

/** ASCII only: DNS compares no other letters without case (RFC 4343). */
function lower(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => letter.toLowerCase()).replace(/\.$/, '');
}
