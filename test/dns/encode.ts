import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';

/** A record as a test writes it; rdata is what goes on the wire. */
export interface TestRecord {
  readonly name: DomainName;
  readonly type: number;
  readonly ttlSeconds: number;
  readonly rdata: Buffer;
  readonly class?: number;
}

export interface TestMessage {
  rcode: number;
  /** Above the rcode: QR, RD, RA and CD unless a test says otherwise. */
  flags: number;
  answer: TestRecord[];
  authority: TestRecord[];
  additional: TestRecord[];
}

export function emptyMessage(rcode = 0): TestMessage {
  return { rcode, flags: 0x8190, answer: [], authority: [], additional: [] };
}

/** Writes a message without compression, with the id and question of `query` and an OPT record. */
export function encodeMessage(message: TestMessage, query: Buffer): Buffer {
  const questionEnd = query.length - 11;
  const head = Buffer.alloc(12);
  head.writeUInt16BE(query.readUInt16BE(0), 0);
  head.writeUInt16BE(message.flags | message.rcode, 2);
  const counts = [1, message.answer.length, message.authority.length, message.additional.length + 1];
  for (const [index, count] of counts.entries()) head.writeUInt16BE(count, 4 + index * 2);
  const records = [...message.answer, ...message.authority, ...message.additional];
  const opt = {
    name: DomainName.parse('.'),
    type: TYPE.OPT,
    class: 1232,
    ttlSeconds: 0x8000,
    rdata: Buffer.alloc(0),
  };
  return Buffer.concat([head, query.subarray(12, questionEnd), ...[...records, opt].map(encodeRecord)]);
}

export function encodeRecord(record: TestRecord): Buffer {
  const owner = record.name.wire;
  const fixed = Buffer.alloc(10);
  fixed.writeUInt16BE(record.type, 0);
  fixed.writeUInt16BE(record.class ?? 1, 2);
  fixed.writeUInt32BE(record.ttlSeconds, 4);
  fixed.writeUInt16BE(record.rdata.length, 8);
  return Buffer.concat([owner, fixed, record.rdata]);
}

/** Numbers of the given sizes in octets, one after another. */
export function numbers(...fields: readonly (readonly [value: number, bytes: number])[]): Buffer {
  return Buffer.concat(
    fields.map(([value, bytes]) => {
      const octets = Buffer.alloc(bytes);
      octets.writeUIntBE(value, 0, bytes);
      return octets;
    }),
  );
}

export function nameRdata(text: string): Buffer {
  return DomainName.parse(text).wire;
}

export function addressRdata(text: string): Buffer {
  return Buffer.from(text.split('.').map(Number));
}

/** The type bitmap of NSEC and NSEC3 (RFC 4034 section 4.1.2). */
export function bitmapRdata(types: readonly number[]): Buffer {
  const windows = new Map<number, Buffer>();
  for (const type of [...types].sort((a, b) => a - b)) {
    const octets = windows.get(type >> 8) ?? Buffer.alloc(32);
    windows.set(type >> 8, octets);
    const at = (type & 0xff) >> 3;
    octets.writeUInt8(octets.readUInt8(at) | (0x80 >> (type & 7)), at);
  }
  const parts = [...windows].map(([window, octets]) => {
    const used = octets.findLastIndex((octet) => octet !== 0) + 1;
    return Buffer.concat([Buffer.from([window, used]), octets.subarray(0, used)]);
  });
  return Buffer.concat(parts);
}
