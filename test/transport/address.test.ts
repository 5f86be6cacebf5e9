import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ErrorCode, isPosternError, PosternError } from '../../shared/errors.ts';
import {
  CID_ANY,
  formatTransportAddress,
  parseTransportAddress,
  type TransportAddress,
  UNIX_PATH_MAX_BYTES,
} from '../../shared/transport/address.ts';
import { transportFailure } from '../../shared/transport/failure.ts';
import { ErrnoError } from '../../shared/transport/native/libc.ts';

const GOOD: readonly (readonly [string, TransportAddress])[] = [
  ['vsock:3:5000', { kind: 'vsock', cid: 3, port: 5000 }],
  ['vsock:2:1', { kind: 'vsock', cid: 2, port: 1 }],
  ['vsock:ANY:5000', { kind: 'vsock', cid: CID_ANY, port: 5000 }],
  ['vsock:4294967294:4294967294', { kind: 'vsock', cid: 4294967294, port: 4294967294 }],
  ['hybrid:/run/vm/v.sock:5000', { kind: 'hybrid', path: '/run/vm/v.sock', port: 5000 }],
  ['hybrid:/run/a:b:5000', { kind: 'hybrid', path: '/run/a:b', port: 5000 }],
  ['unix:/run/postern.sock', { kind: 'unix', path: '/run/postern.sock' }],
  ['unix:relative:odd', { kind: 'unix', path: 'relative:odd' }],
  [`unix:${'p'.repeat(UNIX_PATH_MAX_BYTES)}`, { kind: 'unix', path: 'p'.repeat(UNIX_PATH_MAX_BYTES) }],
  [`hybrid:${'p'.repeat(96)}:1`, { kind: 'hybrid', path: 'p'.repeat(96), port: 1 }],
];

const BAD: readonly string[] = [
  '',
  ':',
  'unix:',
  'unix',
  'tcp:127.0.0.1:80',
  'vsock:3',
  'vsock:3:',
  'vsock::5000',
  'vsock:-1:5000',
  'vsock:3:5000:1',
  'vsock:03:5000',
  'vsock:0x3:5000',
  'vsock:3:1e3',
  'vsock: 3:5000',
  'vsock:any:5000',
  'vsock:4294967295:5000',
  'vsock:3:4294967295',
  'vsock:3:99999999999',
  'VSOCK:3:5000',
  'hybrid::5000',
  'hybrid:/run/v.sock',
  'hybrid:/run/v.sock:',
  'hybrid:/run/v.sock:x',
  'unix:a\0b',
  `unix:${'p'.repeat(UNIX_PATH_MAX_BYTES + 1)}`,
  `unix:${'é'.repeat(54)}`,
  `hybrid:${'p'.repeat(97)}:1`,
];

for (const [text, address] of GOOD) {
  test(`${text.slice(0, 40)} is an address, and is written the same`, () => {
    assert.deepEqual(parseTransportAddress(text), address);
    assert.equal(formatTransportAddress(address), text);
  });
}

for (const text of BAD) {
  test(`${JSON.stringify(text.slice(0, 40))} is no address`, () => {
    assert.throws(
      () => parseTransportAddress(text),
      (error) => isPosternError(error, 'ERR_ADDRESS_INVALID'),
    );
  });
}

const FAILURES: readonly (readonly [string, ErrorCode])[] = [
  ['ECONNREFUSED', 'ERR_TRANSPORT_REFUSED'],
  ['ECONNRESET', 'ERR_TRANSPORT_REFUSED'],
  ['ENOENT', 'ERR_TRANSPORT_UNREACHABLE'],
  ['ENODEV', 'ERR_TRANSPORT_UNREACHABLE'],
  ['ETIMEDOUT', 'ERR_TRANSPORT_TIMEOUT'],
  ['EADDRINUSE', 'ERR_TRANSPORT_IN_USE'],
  ['EACCES', 'ERR_TRANSPORT_DENIED'],
  ['EAFNOSUPPORT', 'ERR_TRANSPORT_UNSUPPORTED'],
  ['EMFILE', 'ERR_TRANSPORT_FAILED'],
];

for (const [errno, code] of FAILURES) {
  test(`${errno} is ${code}, and keeps its cause`, () => {
    const cause = new ErrnoError('connect', errno);
    const error = transportFailure(cause, { kind: 'vsock', cid: 3, port: 5000 });
    assert.ok(isPosternError(error, code));
    assert.equal(error.cause, cause);
    assert.match(error.message, /^vsock:3:5000: connect: E/);
  });
}

test('what is no failed system call stays what it is', () => {
  const address = { kind: 'unix', path: '/x' } as const;
  const coded = new PosternError('ERR_TRANSPORT_ABORTED', 'given up');
  assert.equal(transportFailure(coded, address), coded);
  const bug = new TypeError('a bug');
  assert.equal(transportFailure(bug, address), bug);
});
