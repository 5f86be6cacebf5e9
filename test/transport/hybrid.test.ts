import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, isPosternError } from '../../shared/errors.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import type { ConnectOptions, Stream } from '../../shared/transport/transport.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-hybrid-'));
after(() => rmSync(folder, { recursive: true }));

const PORT = 5000;
const path = join(folder, 'v.sock');
const address = { kind: 'hybrid', path, port: PORT } as const;

/** A hypervisor that says these pieces after it has read the CONNECT line. */
async function hypervisor(say: (socket: Socket, line: string) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy()).on('end', () => socket.end());
    socket.once('data', (piece) => say(socket, piece.toString()));
  });
  server.listen(path);
  await once(server, 'listening');
  return server;
}

async function withHypervisor(
  say: (socket: Socket, line: string) => void,
  run: () => Promise<void>,
): Promise<void> {
  const server = await hypervisor(say);
  try {
    await run();
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

async function readAll(stream: Stream): Promise<string> {
  const pieces: Buffer[] = await stream.toArray();
  stream.destroy();
  return Buffer.concat(pieces).toString();
}

function failsWith(code: ErrorCode, options?: ConnectOptions) {
  return () => assert.rejects(connectStream(address, options), (error) => isPosternError(error, code));
}

test('asks for the port in one line', () =>
  withHypervisor(
    (socket, line) => socket.end(line === `CONNECT ${PORT}\n` ? 'OK 1073741824\n' : 'NO\n'),
    async () => void (await connectStream(address)).destroy(),
  ));

for (const glued of ['OK 1024\nabc', 'OK 0\n']) {
  test(`keeps what follows the line: ${JSON.stringify(glued)}`, () =>
    withHypervisor(
      (socket) => {
        socket.write(glued);
        socket.end('def');
      },
      async () => {
        const stream = await connectStream(address);
        assert.equal(await readAll(stream), `${glued.split('\n')[1]}def`);
      },
    ));
}

test('reads an answer that comes a byte at a time', () =>
  withHypervisor(
    async (socket) => {
      for (const byte of 'OK 1073741824\nxyz') {
        socket.write(byte);
        await sleep(1);
      }
      socket.end();
    },
    async () => {
      const stream = await connectStream(address);
      assert.equal(await readAll(stream), 'xyz');
    },
  ));

for (const answer of [
  'NO\n',
  '\n',
  'OK \n',
  'OK\n',
  'OK 12345678901\n',
  'OK 1 \n',
  'ok 1\n',
  'x'.repeat(32),
  'x'.repeat(100_000),
]) {
  test(`refuses the answer ${JSON.stringify(answer.slice(0, 40))} of ${answer.length} bytes`, () =>
    withHypervisor((socket) => socket.write(answer), failsWith('ERR_TRANSPORT_FAILED')));
}

test('a close before the line is a refusal', () =>
  withHypervisor((socket) => socket.end(), failsWith('ERR_TRANSPORT_REFUSED')));

test('a close in the middle of the line is a refusal', () =>
  withHypervisor((socket) => socket.end('OK 12'), failsWith('ERR_TRANSPORT_REFUSED')));

test('a reset is a refusal', () =>
  withHypervisor((socket) => socket.destroy(), failsWith('ERR_TRANSPORT_REFUSED')));

test('silence runs into the deadline', () =>
  withHypervisor(() => undefined, failsWith('ERR_TRANSPORT_TIMEOUT', { timeoutMs: 50 })));

test('a caller that gives up in the middle is told so', () =>
  withHypervisor(() => undefined, failsWith('ERR_TRANSPORT_ABORTED', { signal: AbortSignal.timeout(50) })));
