import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readMessage } from '../../guest/dns/message.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { FrameReader, frame } from '../../guest/dns/upstream/frames.ts';
import { encodeQuery } from '../../guest/dns/upstream/query.ts';
import { addressRdata, nameRdata } from '../dns/encode.ts';
import { TestWorld } from '../dns/world.ts';
import { TestZone } from '../dns/zone.ts';
import { fuzzDecoder, fuzzRounds, fuzzSeed, mutate, SeededRandom } from './fuzz.ts';

const zone = new TestZone('example.', { denial: 'nsec3' });
zone
  .add('www.example.', TYPE.A, addressRdata('192.0.2.1'))
  .add('a.example.', TYPE.CNAME, nameRdata('www.example.'));
zone.add('*.w.example.', TYPE.TXT, Buffer.from('\x03abc', 'latin1'));
const world = new TestWorld(new TestZone('.'), zone);

async function corpus(): Promise<Buffer[]> {
  const questions: [string, number][] = [
    ['www.example.', TYPE.A],
    ['a.example.', TYPE.A],
    ['none.example.', TYPE.A],
    ['x.w.example.', TYPE.TXT],
    ['example.', TYPE.DNSKEY],
    ['example.', TYPE.DS],
    ['example.', TYPE.SOA],
  ];
  const answers = questions.map(([name, type]) => world.exchange(encodeQuery(DomainName.parse(name), type)));
  return [...(await Promise.all(answers)), ...HOSTILE];
}

/** A header with the given counts, then octets. */
function message(counts: readonly [number, number, number, number], body: string): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt16BE(0x8180, 2);
  for (const [index, count] of counts.entries()) head.writeUInt16BE(count, 4 + index * 2);
  return Buffer.concat([head, Buffer.from(body, 'hex')]);
}

/** Pointers to themselves, to each other, forwards, into the header; counts without records; labels of unknown types. */
const HOSTILE = [
  message([1, 0, 0, 0], 'c00c00010001'),
  message([1, 0, 0, 0], 'c00ec00c00010001'),
  message([1, 0, 0, 0], '0161c00c00010001'),
  message([1, 0, 0, 0], 'c0ff00010001'),
  message([1, 0, 0, 0], 'c00000010001'),
  message([0, 65535, 65535, 65535], ''),
  message([1, 0, 0, 0], '4161000000010001'),
  message([1, 0, 0, 0], '8061000000010001'),
  message([0, 1, 0, 0], '0000010001000000ffffff'),
  message([0, 0, 0, 2], '0000290200000080000000000029020000008000000000'),
  message([1, 0, 0, 0], `${'3f'.concat('61'.repeat(63)).repeat(5)}0000010001`),
];

test('every truncation and mutation of a message is read or refused', async () => {
  const samples = await corpus();
  for (const sample of samples) {
    for (let length = 0; length < sample.length; length += 1) {
      assert.throws(() => readMessage(sample.subarray(0, length)), { code: 'ERR_DNS_MALFORMED' });
    }
  }
  fuzzDecoder('dns message', samples, fuzzRounds(20_000), (bytes) => readMessage(bytes));
});

test('hostile messages are refused', () => {
  for (const sample of HOSTILE) assert.throws(() => readMessage(sample), { code: 'ERR_DNS_MALFORMED' });
});

test('names that point to names that point: the work is linear', () => {
  // Each owner points to the one before; a reader without a cap walks n * n / 2 pointers.
  const count = 4000;
  const records: Buffer[] = [Buffer.from('0161000001000100000000000461616161', 'hex')];
  let last = 12;
  let at = 12 + 17;
  for (let index = 1; index < count; index += 1) {
    const pointer = Buffer.alloc(2);
    pointer.writeUInt16BE(0xc000 | last);
    records.push(Buffer.concat([pointer, Buffer.from('00010001000000000000', 'hex')]));
    last = at;
    at += 12;
    if (last > 0x3fff) break;
  }
  const wire = Buffer.concat([message([0, records.length, 0, 0], ''), ...records]);
  assert.throws(() => readMessage(wire), { code: 'ERR_DNS_MALFORMED' });
});

test('whatever is read is judged without anything but a coded error, and never becomes secure with other data', async () => {
  const samples = await corpus();
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  const validator = world.validator();
  const name = DomainName.parse('www.example.');
  await validator.resolve(name, TYPE.A);
  for (let round = fuzzRounds(2_000); round > 0; round -= 1) {
    const bytes = mutate(random, samples);
    world.tamper = (_message, asked, type) =>
      type === TYPE.A && asked.equals(name) ? withHead(bytes, name) : undefined;
    const verdict = await world.ask('www.example.', TYPE.A);
    const place = `SEED=${seed} input ${bytes.toString('hex')}`;
    if (verdict.state === 'secure') {
      const data = verdict.answers.flatMap((rrset) => rrset.rdata.map((rdata) => rdata.toString('hex')));
      assert.deepEqual(data, ['c0000201'], place);
    }
    assert.notEqual(verdict.state, 'insecure', place);
  }
});

/** Mutations mostly lose the question; with the right one they get further. */
function withHead(bytes: Buffer, name: DomainName): Buffer {
  const query = encodeQuery(name, TYPE.A);
  const questionEnd = query.length - 11;
  return Buffer.concat([bytes.subarray(0, 12), query.subarray(12, questionEnd), bytes.subarray(questionEnd)]);
}

test('a TCP stream comes apart into the same messages, however it is cut', () => {
  const messages = [
    Buffer.from('first'),
    Buffer.alloc(0),
    Buffer.alloc(70_000 & 0xffff, 7),
    Buffer.from('x'),
  ];
  const stream = Buffer.concat(messages.map((one) => frame(one)));
  for (const size of [1, 2, 3, 1000, stream.length]) {
    const reader = new FrameReader();
    const got: Buffer[] = [];
    for (let at = 0; at < stream.length; at += size) got.push(...reader.push(stream.subarray(at, at + size)));
    assert.deepEqual(got, messages);
  }
});
