import { randomInt } from 'node:crypto';
import { FLAG, HEADER_BYTES } from '../message.ts';
import type { DomainName } from '../name.ts';
import { CLASS_IN, TYPE } from '../types.ts';

/** Fits every path without fragments (RFC 9715). */
export const EDNS_PAYLOAD_BYTES = 1232;
const EDNS_DO = 0x8000;
const OPT_BYTES = 11;

/** A question upstream: recursion, checking disabled, EDNS with DO, an unpredictable id. */
export function encodeQuery(name: DomainName, type: number): Buffer {
  const question = name.wire;
  const query = Buffer.alloc(HEADER_BYTES + question.length + 4 + OPT_BYTES);
  query.writeUInt16BE(randomInt(0x10000), 0);
  query.writeUInt16BE(FLAG.RD | FLAG.CD, 2);
  query.writeUInt16BE(1, 4);
  query.writeUInt16BE(1, 10);
  question.copy(query, HEADER_BYTES);
  let at = HEADER_BYTES + question.length;
  query.writeUInt16BE(type, at);
  query.writeUInt16BE(CLASS_IN, at + 2);
  at += 5; // the OPT record's owner is the root
  query.writeUInt16BE(TYPE.OPT, at);
  query.writeUInt16BE(EDNS_PAYLOAD_BYTES, at + 2);
  query.writeUInt32BE(EDNS_DO, at + 4);
  return query;
}

/**
 * True for a message that answers `query`: response bit, id, opcode and question agree (letters of either case). A
 * refusal may come without a question (RFC 6891 section 7, from servers that know no EDNS).
 */
export function answersQuery(response: Buffer, query: Buffer): boolean {
  if (response.length < HEADER_BYTES || response.readUInt16BE(0) !== query.readUInt16BE(0)) return false;
  const flags = response.readUInt16BE(2);
  if ((flags & FLAG.QR) === 0 || (flags & 0x7800) !== 0) return false;
  const questions = response.readUInt16BE(4);
  if (questions === 0) return (flags & 0xf) !== 0 && response.readUInt16BE(6) === 0;
  const end = query.length - OPT_BYTES;
  if (questions !== 1 || response.length < end) return false;
  for (let at = HEADER_BYTES; at < end; at += 1) {
    if (lowered(response[at] ?? 0) !== lowered(query[at] ?? 0)) return false;
  }
  return true;
}

function lowered(octet: number): number {
  return octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet;
}
