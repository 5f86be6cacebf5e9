import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

/** A cold start takes 5 to 15 seconds on two cores; four times that is a machine that is busy with other tests. */
const READY_TIMEOUT_MS = 60_000;
const POLL_MS = 100;
const POLL_TIMEOUT_MS = 2_000;

const run = promisify(execFile);

/** A real S3 server on loopback: Ceph's gateway over one monitor and one OSD in memory. */
export interface Radosgw {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Ends the gateway alone, as kill -9 does; the objects stay. */
  killGateway(): Promise<void>;
  startGateway(): Promise<void>;
  /** What the gateway that runs now was asked for; a HEAD counts as a GET. */
  requests(): Promise<{ readonly puts: number; readonly gets: number }>;
  /** Ends everything and removes its files. */
  stop(): Promise<void>;
}

export interface RadosgwOptions {
  /**
   * Default true. Without it every request reads its user and bucket anew; with it a gateway waits half a minute for
   * the caches of one that was killed.
   */
  readonly cache?: boolean;
}

export async function startRadosgw(options: RadosgwOptions = {}): Promise<Radosgw> {
  const folder = await mkdtemp(`${tmpdir()}/postern-rgw-`);
  const cluster = new Cluster(folder, await freePort(), await freePort(), options.cache ?? true);
  try {
    await cluster.start();
  } catch (error) {
    const logs = await cluster.logs();
    await cluster.stop();
    throw new Error(`radosgw did not start (test/setup.sh installs it): ${String(error)}\n${logs}`);
  }
  return cluster;
}

class Cluster implements Radosgw {
  readonly endpoint: string;
  readonly accessKeyId = 'postern-test';
  readonly secretAccessKey = 'postern-test-secret';
  readonly #folder: string;
  readonly #monitorPort: number;
  readonly #port: number;
  readonly #cache: boolean;
  readonly #daemons = new Map<string, ChildProcess>();

  constructor(folder: string, port: number, monitorPort: number, cache: boolean) {
    this.#folder = folder;
    this.#port = port;
    this.#monitorPort = monitorPort;
    this.#cache = cache;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  async start(): Promise<void> {
    const fsid = randomUUID();
    const osdId = randomUUID();
    for (const name of ['mon', 'osd', 'rgw', 'run', 'log']) await mkdir(`${this.#folder}/${name}`);
    await writeFile(`${this.#folder}/ceph.conf`, this.#configuration(fsid));
    const monitor = `v1:127.0.0.1:${this.#monitorPort}`;
    await this.#tool('monmaptool', [
      '--create',
      '--fsid',
      fsid,
      '--addv',
      'a',
      monitor,
      this.#path('monmap'),
    ]);
    const keyring = this.#path('keyring');
    await this.#tool('ceph-authtool', [
      '--create-keyring',
      keyring,
      '--gen-key',
      '-n',
      'mon.',
      '--cap',
      'mon',
      'allow *',
    ]);
    await this.#tool('ceph-mon', [
      '--mkfs',
      '-i',
      'a',
      '--monmap',
      this.#path('monmap'),
      '--keyring',
      keyring,
    ]);
    this.#daemon('ceph-mon', ['-i', 'a']);
    await retried(() => this.#tool('ceph', ['--connect-timeout', '5', 'osd', 'new', osdId]));
    await this.#tool('ceph-osd', ['-i', '0', '--mkfs', '--osd-uuid', osdId]);
    this.#daemon('ceph-osd', ['-i', '0']);
    await this.startGateway();
    const { accessKeyId, secretAccessKey } = this;
    const keys = [`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`];
    await this.#tool('radosgw-admin', ['user', 'create', '--uid=test', '--display-name=test', ...keys]);
  }

  async startGateway(): Promise<void> {
    const gateway = this.#daemon('radosgw', ['-n', 'client.rgw']);
    await retried(async () => {
      // On a busy machine an OSD may ask before it has the cluster's id, is told "wrong fsid", and exits.
      if (this.#daemons.get('ceph-osd')?.exitCode !== null) this.#daemon('ceph-osd', ['-i', '0']);
      if (gateway.exitCode !== null) throw new Error(`radosgw exited with ${gateway.exitCode}`);
      await (await fetch(this.endpoint, { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) })).arrayBuffer();
    });
  }

  async killGateway(): Promise<void> {
    await this.#end('radosgw', 'SIGKILL');
  }

  async requests(): Promise<{ readonly puts: number; readonly gets: number }> {
    const command = JSON.stringify({ prefix: 'perf dump', logger: 'rgw' });
    const answer = await askAdminSocket(this.#path('run/client.rgw.asok'), command);
    const { rgw } = JSON.parse(answer) as { rgw: { put: number; get: number } };
    return { puts: rgw.put, gets: rgw.get };
  }

  async stop(): Promise<void> {
    // The objects are in memory: nothing is worth a graceful end.
    for (const name of [...this.#daemons.keys()].reverse()) await this.#end(name, 'SIGKILL');
    await rm(this.#folder, { recursive: true, force: true });
  }

  async logs(): Promise<string> {
    const names = ['mon.a', 'osd.0', 'client.rgw'].map((name) => this.#path(`log/${name}.log`));
    const texts = await Promise.all(names.map((name) => readFile(name, 'utf8').catch(() => '')));
    return texts.map((text) => text.split('\n').slice(-15).join('\n')).join('\n');
  }

  #path(name: string): string {
    return `${this.#folder}/${name}`;
  }

  async #tool(name: string, args: string[]): Promise<void> {
    await run(name, ['-c', this.#path('ceph.conf'), ...args], { timeout: READY_TIMEOUT_MS });
  }

  #daemon(name: string, args: string[]): ChildProcess {
    const child = spawn(name, ['-f', '-c', this.#path('ceph.conf'), ...args], { stdio: 'ignore' });
    this.#daemons.set(name, child);
    return child;
  }

  async #end(name: string, signal: NodeJS.Signals): Promise<void> {
    const child = this.#daemons.get(name);
    this.#daemons.delete(name);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }

  /** One replica, no authentication inside, nothing that runs on a timer, and no 44 ms of Nagle on a small GET. */
  #configuration(fsid: string): string {
    const folder = this.#folder;
    return `[global]
fsid = ${fsid}
mon host = v1:127.0.0.1:${this.#monitorPort}
public network = 127.0.0.0/8
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
keyring = ${folder}/keyring
run dir = ${folder}/run
admin socket = ${folder}/run/$name.asok
log file = ${folder}/log/$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
osd objectstore = memstore
memstore device bytes = 4294967296
rgw frontends = beast endpoint=127.0.0.1:${this.#port} tcp_nodelay=1
rgw cache enabled = ${this.#cache}
rgw enable usage log = false
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
rgw run sync thread = false
rgw override bucket index max shards = 1
[mon.a]
mon data = ${folder}/mon
[osd.0]
osd data = ${folder}/osd
[client.rgw]
rgw data = ${folder}/rgw
`;
  }
}

/** As `ceph --admin-daemon` does, without the second of CPU that it takes: a command and a NUL, a length and JSON. */
async function askAdminSocket(path: string, command: string): Promise<string> {
  const socket = connect(path);
  socket.write(`${command}\0`);
  const pieces: Buffer[] = [];
  for await (const piece of socket) pieces.push(piece as Buffer);
  return Buffer.concat(pieces).subarray(4).toString('utf8');
}

async function retried(attempt: () => Promise<void>): Promise<void> {
  const endMs = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
    await sleep(POLL_MS);
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
