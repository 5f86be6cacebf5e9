import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { stringify } from 'yaml';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { connectStream } from '../../shared/transport/connect.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { closed, readReply, TestAgent } from '../parent/agent.ts';
import { tcpServer, usual, usualGuest } from '../parent/setup.ts';

const PROGRAM = join(import.meta.dirname, '../../shared/cli/postern.ts');

type LogLine = Record<string, unknown>;

/** A parent in a process of its own. */
class ParentProcess {
  readonly child: ChildProcess;
  readonly lines: LogLine[] = [];
  readonly exited: Promise<number | null>;
  #text = '';

  /** @param descriptorLimit of the process, `ulimit -n` */
  constructor(file: string, descriptorLimit?: number) {
    const args = [PROGRAM, 'parent', '--config', file, '--log', 'json'];
    const limited = ['-c', `ulimit -n ${descriptorLimit} && exec "$0" "$@"`, process.execPath, ...args];
    const [program, programArgs] = descriptorLimit === undefined ? [process.execPath, args] : ['sh', limited];
    this.child = spawn(program, programArgs, { stdio: ['ignore', 'inherit', 'pipe'] });
    this.exited = once(this.child, 'exit').then(([code]) => code as number | null);
    const { stderr } = this.child;
    if (stderr === null) throw new Error('no standard error');
    createInterface({ input: stderr }).on('line', (line) => {
      this.#text += `${line}\n`;
      if (line.startsWith('{')) this.lines.push(JSON.parse(line) as LogLine);
      this.child.emit('line');
    });
  }

  /** All that it said. */
  get text(): string {
    return this.#text;
  }

  /** The first line with this message, now or later. */
  async line(message: string): Promise<LogLine> {
    for (;;) {
      const found = this.lines.find(({ msg }) => msg === message);
      if (found !== undefined) return found;
      if (this.child.exitCode !== null) throw new Error(`exited before "${message}":\n${this.#text}`);
      await Promise.race([once(this.child, 'line'), this.exited]);
    }
  }
}

interface Folder {
  readonly file: string;
  readonly tunnel: TransportAddress;
  write(changes?: Record<string, unknown>): Promise<void>;
  start(descriptorLimit?: number): Promise<ParentProcess>;
}

async function makeFolder(t: TestContext): Promise<Folder> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-scenario-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, 'parent.yaml');
  const write = (changes: Record<string, unknown> = {}) =>
    writeFile(file, stringify({ ...usual(folder, { web: {} }), drainTimeoutMs: 60_000, ...changes }));
  await write();
  const start = async (descriptorLimit?: number): Promise<ParentProcess> => {
    const process = new ParentProcess(file, descriptorLimit);
    t.after(() => process.child.kill('SIGKILL'));
    await process.line('serving');
    return process;
  };
  return { file, tunnel: { kind: 'unix', path: join(folder, 'web') }, write, start };
}

async function metric(parent: ParentProcess, line: string): Promise<boolean> {
  const { admin } = await parent.line('serving');
  const text = await (await fetch(`http://${admin}/metrics`)).text();
  return text.split('\n').includes(`postern_parent_${line}`);
}

function run(...args: string[]) {
  return spawnSync(process.execPath, [PROGRAM, 'parent', ...args], { encoding: 'utf8' });
}

test('--check says what is wrong, all of it, and starts nothing', async (t) => {
  const { file, write, tunnel } = await makeFolder(t);
  const good = run('--config', file, '--check');
  assert.deepEqual([good.status, good.stdout], [0, `${file}: ok, 1 guest\n`]);
  await write({ version: 7, drainTimeoutMs: 'long', guests: { web: { cid: 0 } } });
  const bad = run('--config', file, '--check');
  assert.equal(bad.status, 2);
  for (const path of ['version: ', 'drainTimeoutMs: ', 'guests.web.cid: ', 'guests.web.egress: ']) {
    assert.ok(bad.stderr.includes(path), path);
  }
  assert.equal(run('--config', file).status, 2);
  assert.equal(run('--config', `${file}.not-there`).status, 2);
  assert.equal(run().status, 2);
  assert.equal(run('--config', file, '--loud').status, 2);
  assert.ok(!existsSync((tunnel as { path: string }).path));
});

test('a start that cannot bind everything says why and leaves nothing', async (t) => {
  const { file, write, tunnel } = await makeFolder(t);
  const busy = createServer().listen(0, '127.0.0.1');
  await once(busy, 'listening');
  t.after(() => busy.close());
  await write({ admin: `127.0.0.1:${(busy.address() as AddressInfo).port}` });
  const failed = run('--config', file);
  assert.equal(failed.status, 1);
  assert.match(failed.stderr, /ERR_LISTEN_FAILED\n.*admin: cannot listen on 127\.0\.0\.1:\d+: EADDRINUSE/);
  assert.ok(!existsSync((tunnel as { path: string }).path));
});

test('SIGHUP with a bad file changes nothing and says why; with a good one flows go on', async (t) => {
  const { tunnel, write, start, file } = await makeFolder(t);
  const port = await tcpServer(t, (client) => client.pipe(client));
  const parent = await start();
  const agent = await TestAgent.register(tunnel);
  const { stream } = await agent.open(port);
  await write({ guests: { web: { egress: 'none' } } });
  parent.child.kill('SIGHUP');
  const failed = await parent.line('reload failed; the configuration is as it was');
  assert.match(String(failed['reason']), /guests\.web\.egress: /);
  assert.ok(await metric(parent, 'reloads_total{result="failed"} 1'));
  assert.equal((await agent.open(port)).reply.status, 'ok');
  await write({ guests: { web: usualGuest(join(file, '..'), 'web', { egress: { allow: [] } }) } });
  parent.child.kill('SIGHUP');
  await parent.line('configuration reloaded');
  assert.ok(await metric(parent, 'reloads_total{result="applied"} 1'));
  assert.equal((await agent.open(port)).reply.status, 'denied');
  stream.write('still here');
  assert.equal(String((await once(stream, 'data'))[0]), 'still here');
});

test('SIGTERM lets flows end, then exits 0', async (t) => {
  const { tunnel, start } = await makeFolder(t);
  const port = await tcpServer(t, (client) => client.pipe(client));
  const parent = await start();
  const agent = await TestAgent.register(tunnel);
  const { stream } = await agent.open(port);
  parent.child.kill('SIGTERM');
  assert.equal((await agent.frame('goaway')).deadlineMs, 60_000);
  stream.end('last words');
  assert.equal(String((await once(stream, 'data'))[0]), 'last words');
  assert.equal(await parent.exited, 0);
});

test('a second signal ends a drain at once', async (t) => {
  const { tunnel, start } = await makeFolder(t);
  const port = await tcpServer(t, () => {});
  const parent = await start();
  const agent = await TestAgent.register(tunnel);
  await agent.open(port);
  parent.child.kill('SIGTERM');
  await parent.line('draining');
  parent.child.kill('SIGINT');
  assert.equal(await parent.exited, 1);
  await closed(agent.control);
});

test('a parent that is killed comes back to the same guest and to no other', async (t) => {
  const { tunnel, start } = await makeFolder(t);
  const first = await start();
  const agent = await TestAgent.register(tunnel);
  first.child.kill('SIGKILL');
  await first.exited;
  await closed(agent.control);
  const second = await start();
  await assert.rejects(TestAgent.register(tunnel));
  const again = await TestAgent.register(tunnel, agent.key);
  const stream = await again.start({ port: 1, addresses: ['127.0.0.1'] });
  assert.equal((await readReply(stream)).status, 'refused');
  const { admin } = await second.line('serving');
  const released = run('release', 'web', '--admin', String(admin));
  assert.deepEqual([released.status, released.stdout], [0, 'released web\n']);
  await closed(again.control);
  await TestAgent.register(tunnel);
  assert.equal(second.text.includes(agent.key.toString('hex')), false);
});

test('out of descriptors a parent neither dies nor spins, and serves again afterwards', async (t) => {
  const { tunnel, start } = await makeFolder(t);
  const parent = await start(64);
  const agent = await TestAgent.register(tunnel);
  const silent: Stream[] = [];
  for (let count = 0; count < 200; count += 1) {
    const stream = await connectStream(tunnel);
    silent.push(stream.on('error', () => {}) as Stream);
  }
  const before = await cpuTicks(parent);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  t.diagnostic(`${(await cpuTicks(parent)) - before} ticks of 10 ms in a second without descriptors`);
  assert.equal(parent.child.exitCode, null);
  for (const stream of silent) stream.destroy();
  // What was opened meanwhile is closed or served in its turn; the session has lived through it.
  const { reply } = await agent.open(1);
  assert.equal(reply.status, 'refused');
});

/** User and system time of the process so far (proc(5), fields 14 and 15 of stat). */
async function cpuTicks(parent: ParentProcess): Promise<number> {
  const text = await readFile(`/proc/${parent.child.pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
