import { FLAG, HEADER_BYTES, type Message } from '../message.ts';
import type { DomainName } from '../name.ts';
import type { RRset } from '../rrset.ts';
import { CLASS_IN, TYPE } from '../types.ts';

/** RFC 6891 section 6.2.5: what we take and, over UDP, what we send at most. */
export const UDP_PAYLOAD_BYTES = 1232;
const UDP_PLAIN_BYTES = 512;
const TCP_PAYLOAD_BYTES = 65_535;
const OPTION_EDE = 15;
const EDNS_DO = 0x8000;
/** EDE texts are for people; longer ones would cost the answer its room. */
const EDE_TEXT_MAX_BYTES = 200;
/** RFC 1035 section 4.1.4: the octet with which a pointer begins. */
const POINTER_MARK = 0xc0;
/** A pointer to the question's name, which is where most records belong. */
const POINTER_TO_QUESTION = Buffer.from([0xc0, HEADER_BYTES]);

/** An answer to an application, before it is octets. */
export interface Reply {
  readonly rcode: number;
  readonly answers: readonly RRset[];
  readonly authority: readonly RRset[];
  /** No record is sent with more. */
  readonly ttlSeconds: number;
  /** Every record is proven, for the AD bit. */
  readonly isSecure: boolean;
  readonly error?: { readonly code: number; readonly text: string };
}

/**
 * The answer's octets, with id, question and EDNS of the question as it came (`wire`). One that is over what the
 * asker can take is sent empty with TC, so that it comes again over TCP.
 */
export function encodeReply(reply: Reply, wire: Buffer, asked: Message, transport: 'udp' | 'tcp'): Buffer {
  const limit = transport === 'tcp' ? TCP_PAYLOAD_BYTES : udpLimit(asked);
  const whole = assemble(reply, wire, asked);
  if (whole.length <= limit) return whole;
  const empty = assemble({ ...reply, answers: [], authority: [] }, wire, asked);
  empty.writeUInt16BE(empty.readUInt16BE(2) | FLAG.TC, 2);
  return empty;
}

function udpLimit({ edns }: Message): number {
  if (edns === undefined) return UDP_PLAIN_BYTES;
  return Math.min(Math.max(edns.payloadBytes, UDP_PLAIN_BYTES), UDP_PAYLOAD_BYTES);
}

function assemble(reply: Reply, wire: Buffer, asked: Message): Buffer {
  const { question } = asked;
  const questionOctets = question === undefined ? Buffer.alloc(0) : question.name.wire;
  const head = Buffer.alloc(HEADER_BYTES);
  wire.copy(head, 0, 0, 2);
  head.writeUInt16BE(flagsOf(reply, asked), 2);
  const parts: Buffer[] = [head];
  if (question !== undefined) {
    // The name is echoed as it was written; some askers compare its letters.
    const written = wire.subarray(HEADER_BYTES, HEADER_BYTES + questionOctets.length + 4);
    parts.push(written);
    head.writeUInt16BE(1, 4);
  }
  const dnssecOk = asked.edns?.dnssecOk === true;
  for (const [offset, rrsets] of [
    [6, reply.answers],
    [8, reply.authority],
  ] as const) {
    const records = rrsets.flatMap((rrset) => recordsOf(rrset, reply.ttlSeconds, dnssecOk, question?.name));
    head.writeUInt16BE(records.length, offset);
    parts.push(...records);
  }
  if (asked.edns !== undefined) {
    head.writeUInt16BE(1, 10);
    parts.push(optRecord(reply, dnssecOk));
  }
  return Buffer.concat(parts);
}

/** Where the TTLs of an answer of ours stand, its OPT record apart; `at` is where its question ends. */
export function ttlOffsets(answer: Buffer, at: number): number[] {
  const offsets: number[] = [];
  for (let next = at; next < answer.length; ) {
    let length = answer.readUInt8(next);
    for (; length > 0 && length < POINTER_MARK; length = answer.readUInt8(next)) next += 1 + length;
    next += length === 0 ? 1 : 2;
    if (answer.readUInt16BE(next) !== TYPE.OPT) offsets.push(next + 4);
    next += 10 + answer.readUInt16BE(next + 8);
  }
  return offsets;
}

/** RFC 6840 section 5.7 and 5.8: AD for who asked with DO or AD. */
function flagsOf(reply: Reply, asked: Message): number {
  const wantsAd = asked.edns?.dnssecOk === true || (asked.flags & FLAG.AD) !== 0;
  const kept = asked.flags & (FLAG.RD | FLAG.CD);
  return FLAG.QR | FLAG.RA | kept | (reply.isSecure && wantsAd ? FLAG.AD : 0) | (reply.rcode & 0xf);
}

function recordsOf(rrset: RRset, ttlMax: number, dnssecOk: boolean, asked: DomainName | undefined): Buffer[] {
  const owner = asked?.equals(rrset.name) === true ? POINTER_TO_QUESTION : rrset.name.wire;
  const ttl = Math.min(rrset.ttlSeconds, ttlMax);
  const records = rrset.rdata.map((rdata) => encodeRecord(owner, rrset.type, ttl, rdata));
  if (dnssecOk) {
    for (const { rdata } of rrset.signatures) records.push(encodeRecord(owner, TYPE.RRSIG, ttl, rdata));
  }
  return records;
}

function encodeRecord(owner: Buffer, type: number, ttl: number, rdata: Buffer): Buffer {
  const record = Buffer.allocUnsafe(owner.length + 10 + rdata.length);
  owner.copy(record);
  let at = record.writeUInt16BE(type, owner.length);
  at = record.writeUInt16BE(CLASS_IN, at);
  at = record.writeUInt32BE(ttl, at);
  at = record.writeUInt16BE(rdata.length, at);
  rdata.copy(record, at);
  return record;
}

function optRecord(reply: Reply, dnssecOk: boolean): Buffer {
  const text = Buffer.from(reply.error?.text ?? '', 'utf8').subarray(0, EDE_TEXT_MAX_BYTES);
  const option = reply.error === undefined ? Buffer.alloc(0) : Buffer.alloc(6 + text.length);
  if (reply.error !== undefined) {
    option.writeUInt16BE(OPTION_EDE, 0);
    option.writeUInt16BE(2 + text.length, 2);
    option.writeUInt16BE(reply.error.code, 4);
    text.copy(option, 6);
  }
  const opt = Buffer.alloc(11 + option.length);
  opt.writeUInt16BE(TYPE.OPT, 1);
  opt.writeUInt16BE(UDP_PAYLOAD_BYTES, 3);
  opt.writeUInt8(reply.rcode >> 4, 5);
  opt.writeUInt16BE(dnssecOk ? EDNS_DO : 0, 7);
  opt.writeUInt16BE(option.length, 9);
  option.copy(opt, 11);
  return opt;
}
