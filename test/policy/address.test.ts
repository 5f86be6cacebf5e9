import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import { test } from 'node:test';
import { canonicalAddress, formatAddress, parseAddress } from '../../shared/policy/address.ts';
import { formatPrefix, parsePrefix, prefixContains } from '../../shared/policy/prefix.ts';
import { fuzzRounds, fuzzSeed, mutate, SeededRandom } from '../fuzz/fuzz.ts';

const VALID: readonly (readonly [string, string])[] = [
  ['0.0.0.0', '0.0.0.0'],
  ['255.255.255.255', '255.255.255.255'],
  ['192.0.2.1', '192.0.2.1'],
  ['::', '::'],
  ['::1', '::1'],
  ['1::', '1::'],
  ['2001:DB8::1', '2001:db8::1'],
  ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
  ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
  ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
  ['::ffff:10.1.2.3', '::ffff:a01:203'],
  ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
  ['1:2:3:4:5:6:1.2.3.4', '1:2:3:4:5:6:102:304'],
  ['0:0:0:0:0:0:0:0', '::'],
];

test('reads dotted quads and RFC 4291 text, writes RFC 5952', () => {
  for (const [text, canonical] of VALID) {
    const address = parseAddress(text);
    assert.ok(address, text);
    assert.equal(formatAddress(address), canonical);
    assert.deepEqual(parseAddress(canonical), address);
  }
});

const INVALID = [
  '',
  '1.2.3',
  '1.2.3.4.5',
  '256.1.1.1',
  '01.2.3.4',
  '0x7f.0.0.1',
  '2852039166',
  '169.254.43518',
  '1.2.3.4 ',
  '1..2.3',
  '.1.2.3',
  '1.2.3.',
  ':',
  ':::',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4::5:6:7:8',
  '::1::',
  '1:',
  ':1',
  '12345::',
  'g::',
  'fe80::1%eth0',
  '[::1]',
  '::1.2.3',
  '::01.2.3.4',
  '1:2:3:4:5:6:7:1.2.3.4',
  '::1.2.3.4:5',
  '١.2.3.4',
];

test('refuses every other spelling', () => {
  for (const text of INVALID) assert.equal(parseAddress(text), undefined, text);
});

test('agrees with the system’s parser and the URL writer on mutated text', () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  const corpus = [...VALID.map(([text]) => text), ...INVALID].map((text) => Buffer.from(text, 'latin1'));
  for (let round = 0; round < fuzzRounds(20_000); round += 1) {
    const text = mutate(random, corpus).toString('latin1');
    const address = parseAddress(text);
    const expected = (isIPv4(text) || isIPv6(text)) && !text.includes('%');
    assert.equal(address !== undefined, expected, `SEED=${seed} ${JSON.stringify(text)}`);
    if (address === undefined) continue;
    const written = address.family === 4 ? text : new URL(`http://[${text}]`).hostname.slice(1, -1);
    assert.equal(formatAddress(address), written, `SEED=${seed} ${text}`);
  }
});

test('an IPv4-mapped address is the IPv4 address', () => {
  const mapped = parseAddress('::ffff:10.1.2.3');
  assert.ok(mapped);
  assert.equal(formatAddress(canonicalAddress(mapped)), '10.1.2.3');
});

test('blocks: canonical, mapped blocks as IPv4, host bits refused with the block that was meant', () => {
  const read = (text: string) => {
    const reading = parsePrefix(text);
    return 'prefix' in reading ? formatPrefix(reading.prefix) : reading.expected;
  };
  assert.equal(read('10.0.0.0/8'), '10.0.0.0/8');
  assert.equal(read('0.0.0.0/0'), '0.0.0.0/0');
  assert.equal(read('2001:DB8::/32'), '2001:db8::/32');
  assert.equal(read('::ffff:10.0.0.0/104'), '10.0.0.0/8');
  assert.equal(read('::ffff:0:0/96'), '0.0.0.0/0');
  assert.match(read('10.1.2.3/8'), /10\.0\.0\.0\/8 was meant/);
  assert.match(read('2001:db8::1/64'), /2001:db8::\/64 was meant/);
  assert.match(read('10.0.0.0'), /write ip: 10\.0\.0\.0/);
  for (const bad of [
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.0/',
    '::/129',
    '10/8',
    '0x0a.0.0.0/8',
    '10.0.0.0/8/8',
  ]) {
    assert.ok('expected' in parsePrefix(bad), bad);
  }
});

test('a block holds its first and last address and neither neighbour', () => {
  const holds = (block: string, text: string): boolean => {
    const reading = parsePrefix(block);
    const address = parseAddress(text);
    assert.ok('prefix' in reading && address);
    return prefixContains(reading.prefix, address);
  };
  assert.ok(holds('10.20.0.0/15', '10.20.0.0') && holds('10.20.0.0/15', '10.21.255.255'));
  assert.ok(!holds('10.20.0.0/15', '10.19.255.255') && !holds('10.20.0.0/15', '10.22.0.0'));
  assert.ok(holds('2001:db8::/33', '2001:db8:7fff:ffff:ffff:ffff:ffff:ffff'));
  assert.ok(!holds('2001:db8::/33', '2001:db8:8000::'));
  assert.ok(!holds('::/0', '10.0.0.1') && !holds('0.0.0.0/0', '::'));
});
