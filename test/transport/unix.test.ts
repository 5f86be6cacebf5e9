import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { isPosternError } from '../../shared/errors.ts';
import { acceptStreams, bindListener, connectStream, listenStream } from '../../shared/transport/connect.ts';
import {
  AF_UNIX,
  bindSocket,
  closeDescriptor,
  listenSocket,
  openSocket,
} from '../../shared/transport/native/libc.ts';
import { unixSocketAddress } from '../../shared/transport/socket-file.ts';
import type { Stream } from '../../shared/transport/transport.ts';

const CONNECT_MODULE = join(import.meta.dirname, '../../shared/transport/connect.ts');
const folder = mkdtempSync(join(tmpdir(), 'postern-unix-'));
after(() => rmSync(folder, { recursive: true }));

function at(name: string) {
  return { kind: 'unix', path: join(folder, name) } as const;
}

const drop = (stream: Stream) => void stream.destroy();
const inUse = (error: unknown) => isPosternError(error, 'ERR_TRANSPORT_IN_USE');

async function readAll(stream: Stream): Promise<string> {
  const pieces: Buffer[] = await stream.toArray();
  stream.destroy();
  return Buffer.concat(pieces).toString();
}

/** What comes first: the bytes, or undefined for the end. */
function firstPiece(stream: Stream): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    stream.once('data', resolve).once('end', () => resolve(undefined));
    stream.on('error', () => resolve(undefined));
  });
}

/** A socket file whose process is gone. */
function leaveStale(path: string): void {
  const fd = openSocket(AF_UNIX);
  bindSocket(fd, unixSocketAddress(path));
  closeDescriptor(fd);
}

test('the socket file is for its owner alone, and goes when the listener closes', async () => {
  const address = at('mode.sock');
  const listener = await listenStream(address, drop);
  assert.equal(statSync(address.path).mode & 0o777, 0o600);
  await Promise.all([listener.close(), listener.close()]);
  assert.equal(existsSync(address.path), false);
});

test('a live listener keeps its address', async () => {
  const address = at('live.sock');
  const listener = await listenStream(address, drop);
  await assert.rejects(listenStream(address, drop), inUse);
  await readAll(await connectStream(address));
  await listener.close();
});

test('a socket file that a dead process left is replaced', async () => {
  const address = at('stale.sock');
  leaveStale(address.path);
  const listener = await listenStream(address, drop);
  await readAll(await connectStream(address));
  await listener.close();
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('stale.sock')),
    [],
  );
});

test('of many that find the same dead file, one listens', async () => {
  const address = at('race.sock');
  leaveStale(address.path);
  const attempts = await Promise.allSettled(Array.from({ length: 8 }, () => listenStream(address, drop)));
  const listeners = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
  assert.equal(listeners.length, 1);
  for (const attempt of attempts)
    assert.ok(attempt.status === 'fulfilled' || inUse(attempt.reason), String(attempt));
  await readAll(await connectStream(address));
  await Promise.all(listeners.map((listener) => listener.close()));
});

test('what is no socket is never removed', async () => {
  const file = at('precious');
  writeFileSync(file.path, 'precious');
  await assert.rejects(listenStream(file, drop), inUse);
  assert.equal(readFileSync(file.path, 'utf8'), 'precious');
  const way = at('way');
  symlinkSync(file.path, way.path);
  await assert.rejects(listenStream(way, drop), inUse);
  assert.equal(readFileSync(way.path, 'utf8'), 'precious');
  await assert.rejects(listenStream({ kind: 'unix', path: folder }, drop), inUse);
});

test('a closed listener does not remove the file of its successor', async () => {
  const address = at('successor.sock');
  const first = await listenStream(address, drop);
  rmSync(address.path);
  const second = await listenStream(address, drop);
  await first.close();
  await readAll(await connectStream(address));
  await second.close();
});

test('a folder that does not exist is a coded error, both ways', async () => {
  const nowhere = at('no/such.sock');
  const unreachable = (error: unknown) => isPosternError(error, 'ERR_TRANSPORT_UNREACHABLE');
  await assert.rejects(connectStream(nowhere), unreachable);
  await assert.rejects(listenStream(nowhere, drop), unreachable);
});

test('a dead socket file refuses', async () => {
  const address = at('dead.sock');
  leaveStale(address.path);
  await assert.rejects(connectStream(address), (error) => isPosternError(error, 'ERR_TRANSPORT_REFUSED'));
});

test('a thousand connects that nobody answers hold nothing else up, and leave nothing open', async () => {
  const silent = at('silent.sock');
  const fd = openSocket(AF_UNIX);
  bindSocket(fd, unixSocketAddress(silent.path));
  // A backlog of nothing still holds one connection; it is never accepted.
  listenSocket(fd, 0);
  const first = await connectStream(silent);
  const openBefore = readdirSync('/proc/self/fd').length;
  const hanging = Array.from({ length: 1000 }, () => connectStream(silent, { timeoutMs: 1500 }));
  const settled = Promise.allSettled(hanging);
  const answering = at('answering.sock');
  const listener = await listenStream(answering, (stream) => stream.end('here'));
  const stream = await connectStream(answering);
  assert.equal(await readAll(stream), 'here');
  await listener.close();
  for (const result of await settled) {
    assert.ok(result.status === 'rejected' && isPosternError(result.reason, 'ERR_TRANSPORT_TIMEOUT'));
  }
  assert.ok(readdirSync('/proc/self/fd').length <= openBefore);
  first.destroy();
  closeDescriptor(fd);
});

test('a full backlog is waited for', async () => {
  const address = at('full.sock');
  const fd = openSocket(AF_UNIX);
  bindSocket(fd, unixSocketAddress(address.path));
  listenSocket(fd, 0);
  const early = await connectStream(address);
  const late = connectStream(address);
  const listener = acceptStreams(fd, address, (stream) => stream.end('welcome'));
  for (const stream of [early, await late]) {
    assert.equal(await readAll(stream), 'welcome');
  }
  await listener.close();
  closeDescriptor(fd);
});

test('a handler that throws loses its stream, and the listener goes on', async () => {
  const program = `
    import { connectStream, listenStream } from ${JSON.stringify(CONNECT_MODULE)};
    const address = { kind: 'unix', path: ${JSON.stringify(at('throws.sock').path)} };
    let accepted = 0;
    process.on('uncaughtException', (error) => console.log(error.message));
    const listener = await listenStream(address, (stream) => {
      if (++accepted === 1) throw new Error('a bug');
      stream.end('well');
    });
    console.log((await (await connectStream(address)).toArray()).length);
    console.log(String((await (await connectStream(address)).toArray())[0]));
    await listener.close();
    process.exit();`;
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  assert.deepEqual(output.trim().split('\n').sort(), ['0', 'a bug', 'well']);
});

test('a listener out of descriptors sheds what it cannot hold, and accepts again once it can', async () => {
  const address = at('shed.sock');
  const program = `
    import { listenStream } from ${JSON.stringify(CONNECT_MODULE)};
    const address = { kind: 'unix', path: ${JSON.stringify(address.path)} };
    await listenStream(address, (stream) => stream.on('error', () => stream.destroy()).on('end', () => stream.end()).resume().write('in'));
    console.log('listening');`;
  const command = `ulimit -n 60 && exec ${process.execPath} --input-type=module -e "$0"`;
  const child = spawn('sh', ['-c', command, program], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  const streams = await Promise.all(Array.from({ length: 200 }, () => connectStream(address)));
  // Each is either served or closed: none is left hanging.
  const firsts = await Promise.all(streams.map(async (stream) => String(await firstPiece(stream))));
  const served = firsts.filter((first) => first === 'in').length;
  assert.ok(served > 0 && served < 60, `${served} streams were served`);
  for (const stream of streams) stream.destroy();
  for (let first: unknown; String(first) !== 'in'; ) {
    const stream = await connectStream(address);
    first = await firstPiece(stream);
    stream.destroy();
  }
  child.kill('SIGKILL');
  await once(child, 'exit');
});

test('threads accept on one listening descriptor', async () => {
  const address = at('shared.sock');
  const bound = await bindListener(address);
  const workers = [1, 2].map(
    (number) =>
      new Worker(join(import.meta.dirname, 'accept-worker.ts'), {
        workerData: { fd: bound.fd, address, number },
      }),
  );
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  const streams = await Promise.all(Array.from({ length: 100 }, () => connectStream(address)));
  const answers = await Promise.all(streams.map((stream) => readAll(stream)));
  assert.equal(answers.length, 100);
  for (const answer of answers) assert.match(answer, /^worker [12]$/);
  for (const worker of workers) worker.postMessage('close');
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  await bound.release();
});

test('a listener of another program is found alive', async () => {
  const address = at('other.sock');
  const server = createServer().listen(address.path);
  await once(server, 'listening');
  await assert.rejects(listenStream(address, drop), inUse);
  server.close();
});
