import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLIENT_HELLO_MAX_BYTES, ClientHelloReader } from '../../shared/tls/client-hello.ts';
import { fuzzRounds, fuzzSeed, mutate, SeededRandom } from '../fuzz/fuzz.ts';
import { extension, type HelloParts, message, realHello, records, serverName } from './hellos.ts';

/** `serverName`, `none` for a hello without one, else the state or the reason of the refusal. */
function read(bytes: Buffer, chunkBytes = bytes.length): string {
  const reader = new ClientHelloReader();
  let progress = reader.push(Buffer.alloc(0));
  for (let start = 0; start < bytes.length; start += chunkBytes) {
    progress = reader.push(bytes.subarray(start, start + chunkBytes));
  }
  if (progress.state === 'refused') return progress.reason;
  if (progress.state === 'more') return 'more';
  return `${progress.hello.serverName ?? 'none'}${progress.hello.encrypted ? ' encrypted' : ''}`;
}

const wire = (parts: HelloParts, recordBytes?: number): Buffer => records(message(parts), recordBytes);
const NAMED = wire({ extensions: [serverName('api.example.com')] });

test('hellos of a real client: TLS 1.2 and 1.3, with and without a name', async () => {
  const versions = ['TLSv1.2', 'TLSv1.3'] as const;
  for (const version of versions) {
    const pinned = { minVersion: version, maxVersion: version } as const;
    assert.equal(read(await realHello({ ...pinned, servername: 'api.example.com' })), 'api.example.com');
    assert.equal(read(await realHello({ ...pinned, servername: '' })), 'none');
  }
  const both = await realHello({ servername: 'API.Example.com', ALPNProtocols: ['h2', 'http/1.1'] });
  assert.equal(read(both), 'api.example.com');
});

test('cut into any segments and any records', async () => {
  const hello = await realHello({ servername: 'api.example.com' });
  const body = hello.subarray(5);
  for (const recordBytes of [1, 2, 3, 4, 5, 7, 64, 16_384]) {
    for (const chunkBytes of [1, 2, 5, 6, 100, 100_000]) {
      assert.equal(
        read(records(body, recordBytes), chunkBytes),
        'api.example.com',
        `${recordBytes} ${chunkBytes}`,
      );
    }
  }
});

test('every truncation wants more', async () => {
  const hello = records((await realHello({ servername: 'api.example.com' })).subarray(5), 50);
  for (let length = 0; length < hello.length; length += 1) {
    assert.equal(read(hello.subarray(0, length)), 'more', `${length}`);
  }
});

test('what follows the hello in another record is not looked at', () => {
  assert.equal(read(Buffer.concat([NAMED, Buffer.from('anything at all')])), 'api.example.com');
});

test('what is no TLS is known at once', () => {
  for (const text of [
    'G',
    'GET / HTTP/1.1\r\n',
    'SSH-2.0-x',
    '\x80\x2e\x01\x03\x01',
    '\x16\x02',
    '\x17\x03\x03',
  ]) {
    assert.equal(read(Buffer.from(text, 'latin1')), 'not-tls', text);
  }
});

/** One rule of the page broken each. */
const BROKEN: readonly (readonly [string, Buffer])[] = [
  ['empty record', Buffer.from([22, 3, 1, 0, 0])],
  ['record over 16384', Buffer.from([22, 3, 1, 0x40, 1])],
  ['another handshake message', wire({ type: 2, extensions: [] })],
  ['no length', records(Buffer.from([1, 0, 0, 0]))],
  ['version 2', records(Buffer.concat([Buffer.from([1, 0, 0, 2, 2, 0])]))],
  ['session id of 33', wire({ sessionId: Buffer.alloc(33) })],
  ['odd cipher suites', wire({ cipherSuites: Buffer.alloc(3) })],
  ['no cipher suites', wire({ cipherSuites: Buffer.alloc(0) })],
  ['no compression', wire({ compression: Buffer.alloc(0) })],
  ['bytes behind', wire({ extensions: [], trailing: Buffer.from([0]) })],
  ['two names', wire({ extensions: [serverName('a.example.com', 'b.example.com')] })],
  ['no name in the list', wire({ extensions: [serverName()] })],
  ['empty name', wire({ extensions: [serverName('')] })],
  ['two extensions', wire({ extensions: [serverName('a.example.com'), serverName('a.example.com')] })],
  ['another type of name', wire({ extensions: [extension(0, Buffer.from([0, 4, 1, 0, 1, 97]))] })],
  ['list too long', wire({ extensions: [extension(0, Buffer.from([0, 9, 0, 0, 1, 97]))] })],
  ['extension too long', wire({ extensions: [Buffer.from([0, 7, 0, 9, 1])] })],
  ['an address', wire({ extensions: [serverName('192.0.2.1')] })],
  ['a numeric spelling', wire({ extensions: [serverName('0x7f.1')] })],
  ['a name with a zero', wire({ extensions: [serverName('a.example.com\0.evil.test')] })],
  ['a U-label', wire({ extensions: [serverName('b\xfccher.example')] })],
  ['a wildcard', wire({ extensions: [serverName('*.example.com')] })],
  [
    'a message behind in the same record',
    records(Buffer.concat([message({ extensions: [] }), Buffer.from([0])])),
  ],
];

test('what breaks a rule of the page is malformed', () => {
  for (const [title, bytes] of BROKEN) assert.equal(read(bytes), 'malformed', title);
});

test('another record between two parts of the hello', () => {
  const [first, second] = [message({ extensions: [] }).subarray(0, 20), Buffer.from([21, 3, 3, 0, 2, 1, 0])];
  assert.equal(read(Buffer.concat([records(first), second])), 'not-tls');
});

test('a hello over its limit is refused by its length alone', () => {
  const length = CLIENT_HELLO_MAX_BYTES + 1;
  assert.equal(read(records(Buffer.from([1, length >> 16, (length >> 8) & 255, length & 255]))), 'too-large');
  const large = wire({ extensions: [serverName('a.example.com'), extension(21, Buffer.alloc(30_000))] });
  assert.equal(read(large), 'a.example.com');
});

test('a hello without extensions, without a name, with Encrypted Client Hello', () => {
  assert.equal(read(wire({})), 'none');
  assert.equal(read(wire({ extensions: [] })), 'none');
  assert.equal(
    read(wire({ extensions: [serverName('a.example.com.'), extension(0xfe0d, Buffer.alloc(9))] })),
    'a.example.com encrypted',
  );
});

test('mutations: whole and a byte at a time say the same, and nothing throws', () => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  const corpus = [
    NAMED,
    wire({ extensions: [serverName('a.example.com')] }, 9),
    ...BROKEN.map(([, bytes]) => bytes),
  ];
  for (let round = 0; round < fuzzRounds(20_000); round += 1) {
    const bytes = mutate(random, corpus);
    const place = `SEED=${seed} ${bytes.toString('hex')}`;
    assert.equal(read(bytes, 1), read(bytes), place);
    assert.equal(read(bytes, 1 + random.below(40)), read(bytes), place);
  }
});
