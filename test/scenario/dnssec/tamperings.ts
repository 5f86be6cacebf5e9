import { FLAG, type Message, type ResourceRecord, readMessage } from '../../../guest/dns/message.ts';
import { TYPE } from '../../../guest/dns/types.ts';
import { encodeMessage } from '../../dns/encode.ts';
import type { Asked, Sent, Tamper } from './tamper-proxy.ts';

/** What must become of a signed name that has data, and of one that has none (or none of the type). */
export interface Expected {
  readonly positive: 'honest' | 'bogus';
  readonly negative: 'honest' | 'bogus';
}

export interface Tampering {
  readonly title: string;
  readonly tamper: Tamper;
  readonly expected: Expected;
  /** Where nothing comes, for how long it is waited. */
  readonly deadlineMs?: number;
  /** The datagrams alone must have been enough. */
  readonly udpSuffices?: true;
}

const HONEST: Expected = { positive: 'honest', negative: 'honest' };
const BOGUS: Expected = { positive: 'bogus', negative: 'bogus' };
const SILENCE_MS = 500;
const DNSSEC_TYPES = new Set<number>([TYPE.RRSIG, TYPE.NSEC, TYPE.NSEC3, TYPE.DS, TYPE.DNSKEY]);
const TEST_NETWORK = Buffer.from([192, 0, 2]);
const FORGED_NETWORK = Buffer.from([203, 0, 113]);

function one(octets: Buffer): Sent[] {
  return [{ octets }];
}

/** `change` is what happens to the datagrams; the stream is left alone. */
function overUdp(change: (asked: Asked) => readonly Sent[]): Tamper {
  return (asked) => (asked.transport === 'udp' ? change(asked) : one(asked.answer));
}

function copyOf({ answer }: Asked, change: (octets: Buffer) => void): Buffer {
  const octets = Buffer.from(answer);
  change(octets);
  return octets;
}

/** Every address of the test network becomes another. */
function forged(asked: Asked): Buffer {
  return copyOf(asked, (octets) => {
    for (let at = octets.indexOf(TEST_NETWORK); at >= 0; at = octets.indexOf(TEST_NETWORK, at + 1))
      FORGED_NETWORK.copy(octets, at);
  });
}

function truncated(asked: Asked): Buffer {
  return copyOf(asked, (octets) => octets.writeUInt16BE(octets.readUInt16BE(2) | FLAG.TC, 2));
}

function without({ query, answer }: Asked, drop: (record: ResourceRecord) => boolean, flags = 0): Buffer {
  const message: Message = readMessage(answer);
  const kept = (records: readonly ResourceRecord[]): ResourceRecord[] =>
    records.filter((each) => !drop(each));
  const { rcode } = message;
  const rest = { answer: kept(message.answer), authority: kept(message.authority), additional: [] };
  return encodeMessage({ rcode, flags: 0x8190 | flags, ...rest }, query);
}

function rcoded({ query }: Asked, rcode: number): Buffer {
  return encodeMessage({ rcode, flags: 0x8190, answer: [], authority: [], additional: [] }, query);
}

function withRcode(asked: Asked, rcode: number): Buffer {
  return copyOf(asked, (octets) => octets.writeUInt8((octets.readUInt8(3) & 0xf0) | rcode, 3));
}

function withOtherId(octets: Buffer): Buffer {
  const other = Buffer.from(octets);
  other.writeUInt16BE(other.readUInt16BE(0) ^ 0x5555, 0);
  return other;
}

const isSignature = ({ type }: ResourceRecord): boolean => type === TYPE.RRSIG;
const isDnssec = ({ type }: ResourceRecord): boolean => DNSSEC_TYPES.has(type);
const isCut = ({ name, type }: Asked): boolean => type === TYPE.DS && name.labelCount === 2;

export const TAMPERINGS: readonly Tampering[] = [
  { title: 'nothing', tamper: ({ answer }) => one(answer), expected: HONEST },
  { title: 'forges', tamper: (asked) => one(forged(asked)), expected: { ...HONEST, positive: 'bogus' } },
  { title: 'forges datagrams', tamper: overUdp((asked) => one(forged(asked))), expected: HONEST },
  { title: 'strips signatures', tamper: (asked) => one(without(asked, isSignature)), expected: BOGUS },
  { title: 'strips DNSSEC', tamper: (asked) => one(without(asked, isDnssec)), expected: BOGUS },
  {
    title: 'strips DNSSEC, says AD',
    tamper: (asked) => one(without(asked, isDnssec, FLAG.AD)),
    expected: BOGUS,
  },
  { title: 'strips datagrams', tamper: overUdp((asked) => one(without(asked, isDnssec))), expected: HONEST },
  {
    title: 'strips DS records',
    tamper: (asked) => one(isCut(asked) ? without(asked, () => true) : asked.answer),
    expected: BOGUS,
  },
  {
    title: 'shows the proof that another zone is unsigned',
    tamper: async (asked) => one(isCut(asked) ? await asked.ask('plain.test.', TYPE.DS) : asked.answer),
    expected: BOGUS,
  },
  {
    title: 'shows the denial of another name',
    tamper: async (asked) => {
      const isData = asked.name.labelCount > 2;
      return one(isData ? await asked.ask(`zzz.${asked.name.suffix(2)}`, asked.type) : asked.answer);
    },
    expected: { positive: 'bogus', negative: 'bogus' },
  },
  {
    title: 'fails for DS',
    tamper: (asked) => one(isCut(asked) ? rcoded(asked, 2) : asked.answer),
    expected: BOGUS,
  },
  { title: 'refuses', tamper: (asked) => one(rcoded(asked, 5)), expected: BOGUS },
  { title: 'denies all names', tamper: (asked) => one(rcoded(asked, 3)), expected: BOGUS },
  {
    title: 'lies about the rcode of data',
    tamper: (asked) => one(asked.type === TYPE.A ? withRcode(asked, 3) : asked.answer),
    expected: HONEST,
  },
  { title: 'truncates datagrams', tamper: overUdp((asked) => one(truncated(asked))), expected: HONEST },
  { title: 'truncates', tamper: (asked) => one(truncated(asked)), expected: BOGUS },
  {
    title: 'cuts datagrams',
    tamper: overUdp(({ answer }) => one(answer.subarray(0, -20))),
    expected: HONEST,
  },
  { title: 'cuts', tamper: ({ answer }) => one(answer.subarray(0, -20)), expected: BOGUS },
  { title: 'delays', tamper: ({ answer }) => [{ octets: answer, afterMs: 100 }], expected: HONEST },
  { title: 'keeps datagrams', tamper: overUdp(() => []), expected: HONEST },
  { title: 'keeps everything', tamper: () => [], expected: BOGUS, deadlineMs: SILENCE_MS },
  {
    title: 'answers twice, right and wrong',
    tamper: (asked) => [...one(asked.answer), ...one(forged(asked))],
    expected: HONEST,
    udpSuffices: true,
  },
  {
    title: 'answers datagrams twice, wrong and right',
    tamper: overUdp((asked) => [...one(forged(asked)), ...one(asked.answer)]),
    expected: HONEST,
  },
  {
    title: 'answers twice, with another id and right',
    tamper: (asked) => [...one(withOtherId(forged(asked))), ...one(asked.answer)],
    expected: HONEST,
    udpSuffices: true,
  },
  {
    title: 'answers from another address, then from its own',
    tamper: (asked) => [
      { octets: forged(asked), fromElsewhere: true },
      { octets: asked.answer, afterMs: 20 },
    ],
    expected: HONEST,
    udpSuffices: true,
  },
  {
    title: 'answers from another address only',
    tamper: ({ answer }) => [{ octets: answer, fromElsewhere: true }],
    expected: BOGUS,
    deadlineMs: SILENCE_MS,
  },
];
