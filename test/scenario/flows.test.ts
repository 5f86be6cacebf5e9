import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { PartyProcess } from '../../shared/demo/party.ts';
import { fuzzRounds, fuzzSeed, SeededRandom } from '../fuzz/fuzz.ts';
import { socksConnect } from '../guest/socks-client.ts';

const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const STEP_TIMEOUT_MS = 60_000;
const CONCURRENCY = 32;
const BLOCK = Buffer.from(Array.from({ length: 1 << 16 }, (_, index) => (index * 31 + (index >> 8)) & 0xff));

/** What one flow does; each side knows it from the plan, so that what arrives can be told from what should. */
interface Plan {
  readonly upBytes: number;
  readonly downBytes: number;
  readonly pieceBytes: number;
  /** How long a side waits with its end after it has seen the other's. */
  readonly lateMs: number;
  readonly end: 'clean' | 'client-resets' | 'server-resets';
}

/** Two real processes and a real cable but for the hypervisor, and many flows that behave at random. */
for (const cable of ['unix', 'hybrid'] as const) {
  describe(`flows through a parent and a guest over ${cable}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-flows-'));
    const parties: PartyProcess[] = [];
    const plans = new Map<number, Plan>();
    let server: Server;
    let serverPort = 0;
    let proxyPort = 0;

    before(async () => {
      server = createServer({ allowHalfOpen: true }, (socket) => void serve(socket, plans)).listen(
        0,
        '127.0.0.1',
      );
      await once(server, 'listening');
      serverPort = (server.address() as AddressInfo).port;
      const { parentFile, guestFile } = writeConfigurations(folder, cable, serverPort);
      const parent = new PartyProcess(
        'parent',
        [process.execPath, POSTERN, 'parent', '--config', parentFile],
        STEP_TIMEOUT_MS,
      );
      parties.push(parent);
      await parent.logged('that it serves', (line) => (line.includes('parent.up') ? line : undefined));
      const guest = new PartyProcess(
        'guest',
        [process.execPath, POSTERN, 'guest', '--config', guestFile],
        STEP_TIMEOUT_MS,
      );
      parties.push(guest);
      const up = await guest.logged('where it listens', (line) =>
        line.includes('agent.up') ? line : undefined,
      );
      await guest.logged('its session', (line) => (line.includes('session.up') ? line : undefined));
      proxyPort = Number(/"socks5":"127\.0\.0\.1:(\d+)"/.exec(up)?.[1]);
    });

    after(async () => {
      for (const party of parties.reverse()) await party.stop();
      server.close();
      rmSync(folder, { recursive: true, force: true });
    });

    test('every byte arrives, every end is the right one, and nothing is left behind', async (t) => {
      const seed = fuzzSeed();
      t.diagnostic(`SEED=${seed}`);
      const random = new SeededRandom(seed);
      const socketsBefore = parties.map(socketCount);
      const count = fuzzRounds(150);
      for (let id = 0; id < count; id += 1) plans.set(id, makePlan(random));
      let next = 0;
      const worker = async (): Promise<void> => {
        while (next < count) {
          const id = next;
          next += 1;
          const plan = plans.get(id);
          if (plan !== undefined) await converse(id, plan, proxyPort, serverPort, `SEED=${seed} flow ${id}`);
        }
      };
      await Promise.all(Array.from({ length: CONCURRENCY }, worker));
      await settles(() => parties.every((party, at) => socketCount(party) <= (socketsBefore[at] ?? 0)));
    });
  });
}

function makePlan(random: SeededRandom): Plan {
  const size = (): number => random.below(2) * random.below(1 << random.below(21)) + random.below(100);
  return {
    upBytes: size(),
    downBytes: size(),
    pieceBytes: 1 + random.below(1 << 16),
    lateMs: random.below(3) * random.below(60),
    end: random.pick(['clean', 'clean', 'clean', 'client-resets', 'server-resets']),
  };
}

async function converse(
  id: number,
  plan: Plan,
  proxyPort: number,
  serverPort: number,
  name: string,
): Promise<void> {
  const { socket, reply } = await socksConnect(proxyPort, '127.0.0.1', serverPort);
  assert.equal(reply, 0, name);
  const header = Buffer.alloc(4);
  header.writeUInt32BE(id);
  socket.write(header);
  if (plan.end === 'client-resets') {
    socket.resume();
    await send(socket, plan.upBytes, plan.pieceBytes);
    socket.resetAndDestroy();
    return;
  }
  if (plan.end === 'server-resets') {
    const error = new Promise<Error | null>((resolve) => socket.on('close', () => resolve(socket.errored)));
    socket.resume();
    await send(socket, plan.upBytes, plan.pieceBytes);
    assert.match(String(await error), /ECONNRESET|EPIPE/, name);
    return;
  }
  const received = receive(socket);
  await send(socket, plan.upBytes, plan.pieceBytes);
  socket.end();
  assert.deepEqual(await received, { bytes: plan.downBytes, hash: hashOfPattern(plan.downBytes) }, name);
  socket.destroy();
}

async function serve(socket: Socket, plans: ReadonlyMap<number, Plan>): Promise<void> {
  socket.on('error', () => {});
  const header = await new Promise<Buffer>((resolve) => {
    const look = (): void => {
      const bytes = socket.read(4) as Buffer | null;
      if (bytes === null) socket.once('readable', look);
      else resolve(bytes);
    };
    look();
  });
  const plan = plans.get(header.readUInt32BE(0));
  if (plan === undefined) throw new Error('a flow without a plan');
  if (plan.end === 'server-resets') {
    await new Promise((resolve) => setTimeout(resolve, plan.lateMs));
    socket.resetAndDestroy();
    return;
  }
  const received = receive(socket);
  if (plan.end === 'clean') {
    const { bytes, hash } = await received;
    // A difference shows at the client, which gets nothing then.
    if (bytes !== plan.upBytes || hash !== hashOfPattern(plan.upBytes)) return void socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, plan.lateMs));
  }
  await send(socket, plan.downBytes, plan.pieceBytes);
  socket.end();
}

async function send(socket: Socket, byteCount: number, pieceBytes: number): Promise<void> {
  for (let sent = 0; sent < byteCount && !socket.destroyed; ) {
    const start = sent % BLOCK.length;
    const piece = BLOCK.subarray(start, start + Math.min(pieceBytes, byteCount - sent, BLOCK.length - start));
    sent += piece.length;
    if (!socket.write(piece))
      await Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => {});
  }
}

async function receive(socket: Socket): Promise<{ bytes: number; hash: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  socket.on('data', (piece: Buffer) => {
    bytes += piece.length;
    hash.update(piece);
  });
  await Promise.race([once(socket, 'end'), once(socket, 'close')]).catch(() => {});
  return { bytes, hash: hash.digest('hex') };
}

function hashOfPattern(byteCount: number): string {
  const hash = createHash('sha256');
  for (let done = 0; done < byteCount; done += BLOCK.length) {
    hash.update(BLOCK.subarray(0, Math.min(BLOCK.length, byteCount - done)));
  }
  return hash.digest('hex');
}

/** Those of flows: a bulk thread that starts meanwhile has descriptors of its own, none of them a socket. */
function socketCount(party: PartyProcess): number {
  const folder = `/proc/${party.pid}/fd`;
  return readdirSync(folder).filter((fd) => isSocket(join(folder, fd))).length;
}

function isSocket(path: string): boolean {
  try {
    return readlinkSync(path).startsWith('socket:');
  } catch {
    // Closed since it was listed.
    return false;
  }
}

async function settles(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + STEP_TIMEOUT_MS;
  while (!condition()) {
    assert.ok(Date.now() < deadline, 'sockets of flows that are over are still open');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function writeConfigurations(
  folder: string,
  cable: 'unix' | 'hybrid',
  serverPort: number,
): { parentFile: string; guestFile: string } {
  const parentFile = join(folder, 'parent.yaml');
  const guestFile = join(folder, 'guest.yaml');
  // A hypervisor would connect the guest's stream to this socket; it is all the difference.
  const path = join(folder, cable === 'unix' ? 'parent.sock' : 'vm.sock_5000');
  const listen = cable === 'unix' ? `unix:${path}` : `hybrid:${join(folder, 'vm.sock')}:5000`;
  const egress = { allow: [{ ip: '127.0.0.1', ports: serverPort }] };
  const log = { format: 'json' };
  const guests = { flows: { listen, egress } };
  writeFileSync(
    parentFile,
    stringify({ version: 1, state: join(folder, 'state'), admin: 'off', log, guests }),
  );
  writeFileSync(
    guestFile,
    stringify({
      version: 1,
      parent: `unix:${path}`,
      sessionKey: join(folder, 'session.key'),
      proxies: { socks5: '127.0.0.1:0' },
      log,
      policy: { version: 1, egress },
    }),
  );
  return { parentFile, guestFile };
}
