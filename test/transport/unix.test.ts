import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isPosternError } from '../../shared/errors.ts';
import { connectStream, listenStream } from '../../shared/transport/connect.ts';
import { streamPair } from '../../shared/transport/pair.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-unix-'));
after(() => rmSync(folder, { recursive: true }));

test('a stream carries bytes both ways after either side has ended', async () => {
  const path = join(folder, 'echo.sock');
  const listener = await listenStream({ kind: 'unix', path }, (stream) => stream.pipe(stream));
  const stream = await connectStream({ kind: 'unix', path });
  assert.deepEqual(stream.peer, { kind: 'unix', path });
  stream.end('hello');
  const pieces = await stream.toArray();
  assert.equal(Buffer.concat(pieces).toString(), 'hello');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  await listener.close();
  assert.throws(() => statSync(path), { code: 'ENOENT' });
});

test('a listener does not take the place of a live one, nor of a file', async () => {
  const path = join(folder, 'taken.sock');
  const listener = await listenStream({ kind: 'unix', path }, (stream) => stream.destroy());
  const again = listenStream({ kind: 'unix', path }, (stream) => stream.destroy());
  await assert.rejects(again, (error) => isPosternError(error, 'ERR_TRANSPORT_IN_USE'));
  await listener.close();
  const file = join(folder, 'file');
  writeFileSync(file, 'precious');
  const over = listenStream({ kind: 'unix', path: file }, (stream) => stream.destroy());
  await assert.rejects(over, (error) => isPosternError(error, 'ERR_TRANSPORT_IN_USE'));
});

test('the two ends of a pair reach each other', async () => {
  const [left, right] = streamPair();
  right.pipe(right);
  left.end('hello');
  assert.equal(Buffer.concat(await left.toArray()).toString(), 'hello');
});
