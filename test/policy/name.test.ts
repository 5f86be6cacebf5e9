import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  canonicalName,
  isNumericSpelling,
  parseHost,
  patternMatches,
  readPattern,
} from '../../shared/policy/name.ts';
import { fuzzRounds, fuzzSeed, mutate, SeededRandom } from '../fuzz/fuzz.ts';

const LABEL_63 = 'a'.repeat(63);
const NAME_253 = [LABEL_63, LABEL_63, LABEL_63, 'a'.repeat(61)].join('.');

test('one spelling for every name', () => {
  const same: readonly (readonly [string, string])[] = [
    ['api.example.com', 'api.example.com'],
    ['API.Example.COM.', 'api.example.com'],
    ['bücher.example', 'xn--bcher-kva.example'],
    ['BÜCHER.example', 'xn--bcher-kva.example'],
    ['XN--BCHER-KVA.example', 'xn--bcher-kva.example'],
    ['例え。example', 'xn--r8jz45g.example'],
    ['ａｐｉ.example.com', 'api.example.com'],
    ['_dmarc.example.com', '_dmarc.example.com'],
    ['_443._tcp.api.example.com', '_443._tcp.api.example.com'],
    ['r3---sn-4g5e6n.example.com', 'r3---sn-4g5e6n.example.com'],
    ['123.example', '123.example'],
    ['1e100.net', '1e100.net'],
    ['a.0xyz', 'a.0xyz'],
    [NAME_253, NAME_253],
    [`${NAME_253}.`, NAME_253],
  ];
  for (const [text, name] of same) assert.equal(canonicalName(text), name, text);
});

test('what is no name', () => {
  const bad = [
    '',
    '.',
    '..',
    'a..b',
    '.a',
    'a..',
    `${LABEL_63}a.example`,
    `${NAME_253}a`,
    'a b.example',
    'a/b.example',
    'a\0.example',
    'ex%61mple.com',
    'user@example.com',
    'example.com:443',
    'https://example.com',
    '*.example.com',
    '[::1]',
    'fe80::1%eth0',
    'a\u{fffd}\u{2260}.example',
    `${'ü'.repeat(2000)}.example`,
  ];
  for (const text of bad) {
    assert.equal(canonicalName(text), undefined, JSON.stringify(text));
    assert.ok(!isNumericSpelling(text), text);
  }
});

const NUMERIC = [
  '2852039166',
  '0x7f.1',
  '0x7F000001',
  '0251.0376.0251.0376',
  '169.254.43518',
  '169.254.169.254.',
  '127.1',
  '0x',
  '1.2.3.4.5',
  '999.999.999.999',
  'example.1',
  'example.0x1f',
  '１６９.254.169.254',
  '169。254。169。254',
  '①②③',
];

test('numeric spellings of an address are neither names nor addresses', () => {
  for (const text of NUMERIC) {
    assert.equal(canonicalName(text), undefined, text);
    assert.ok(isNumericSpelling(text), text);
    assert.equal(parseHost(text).kind, 'numeric', text);
    assert.ok('expected' in readPattern(text), text);
  }
});

test('hosts: addresses only in their plain form', () => {
  assert.equal(parseHost('192.0.2.1').kind, 'address');
  assert.equal(parseHost('2001:db8::1').kind, 'address');
  assert.equal(parseHost('[2001:db8::1]').kind, 'address');
  assert.equal(parseHost('[192.0.2.1]').kind, 'invalid');
  assert.equal(parseHost('api.example.com').kind, 'name');
});

test('patterns: stars as whole first labels, never right below a registry’s name', () => {
  const pattern = (text: string) => {
    const reading = readPattern(text);
    return 'pattern' in reading ? reading.pattern : undefined;
  };
  assert.equal(pattern('*.Bücher.Example.'), '*.xn--bcher-kva.example');
  assert.equal(pattern('**.example.com'), '**.example.com');
  assert.equal(pattern('localhost'), 'localhost');
  assert.equal(pattern('**.internal'), '**.internal');
  for (const bad of [
    'com',
    '*.com',
    '**.com',
    '*',
    '**',
    '***.example.com',
    'a.*.example.com',
    '*a.example.com',
    'a*',
    '*.',
    '*.*.example.com',
    '**.*.example.com',
  ]) {
    assert.equal(pattern(bad), undefined, bad);
  }
});

test('one star is one label, two are one or more', () => {
  assert.ok(patternMatches('*.example.com', 'a.example.com'));
  assert.ok(!patternMatches('*.example.com', 'b.a.example.com'));
  assert.ok(!patternMatches('*.example.com', 'example.com'));
  assert.ok(!patternMatches('*.example.com', 'aexample.com'));
  assert.ok(patternMatches('**.example.com', 'b.a.example.com'));
  assert.ok(!patternMatches('**.example.com', 'example.com'));
  assert.ok(!patternMatches('**.example.com', 'badexample.com'));
});

test('canonical names are fixed points, whatever the bytes', () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  const corpus = ['bücher.example', 'API.example.com.', '例え。テスト', ...NUMERIC].map((text) =>
    Buffer.from(text),
  );
  for (let round = 0; round < fuzzRounds(20_000); round += 1) {
    const text = mutate(random, corpus).toString('utf8');
    const name = canonicalName(text);
    if (name === undefined) continue;
    const place = `SEED=${seed} ${JSON.stringify(text)}`;
    assert.equal(canonicalName(name), name, place);
    assert.match(name, /^[a-z\d_.-]{1,253}$/, place);
    assert.equal(parseHost(name).kind, 'name', place);
  }
});
