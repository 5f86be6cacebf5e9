import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type DecodedPacket, decode, encode } from 'dns-packet';
import { stringify } from 'yaml';
import { TYPE } from '../../guest/dns/types.ts';
import { QUESTIONS_PER_PORT } from '../../guest/dns/upstream/datagrams.ts';
import { PartyProcess } from '../../shared/demo/party.ts';
import { addressRdata } from '../dns/encode.ts';
import { type RunningServer, resolverServer } from '../dns/servers.ts';
import { TestWorld } from '../dns/world.ts';
import { TestZone } from '../dns/zone.ts';
import { anchorText } from '../guest/signed-world.ts';
import { until } from '../parent/setup.ts';

const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const STEP_TIMEOUT_MS = 60_000;
const HOUR_SECONDS = 3600;
/** The rest of the resolver's name: an address that it does not answer from. */
const ELSEWHERE = '127.0.0.2';
const NAMES = ['plain', 'other', 'truncated', 'forged', 'denied', 'elsewhere', 'afterwards'];

const MANY = Array.from({ length: 60 }, (_, index) => `many${index}`);

/** Two real processes, a signed world behind a real UDP port, and what can go wrong with datagrams on the way. */
describe('a resolver that is asked over UDP, through a real parent', () => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-udp-'));
  const parentFile = join(folder, 'parent.yaml');
  const guestFile = join(folder, 'guest.yaml');
  /** The names asked, and the ports that they came from. */
  const overUdp: { readonly name: string; readonly port: number }[] = [];
  const overTcp: string[] = [];
  let world: TestWorld;
  const servers: RunningServer[] = [];
  let parent: PartyProcess;
  let guest: PartyProcess;
  let resolverPort = 0;
  let dnsPort = 0;
  let adminPort = 0;

  before(async () => {
    const example = new TestZone('example.');
    for (const name of [...NAMES, ...MANY])
      example.add(`${name}.example.`, TYPE.A, addressRdata('192.0.2.7'));
    world = new TestWorld(new TestZone('.'), example);
    const now = Math.floor(Date.now() / 1000);
    const signing = { inception: now - HOUR_SECONDS, expiration: now + HOUR_SECONDS };
    for (const name of ['.', 'example.']) world.zone(name).signing = signing;
    await startResolver();
    writeConfigurations(folder, resolverPort, anchorText(world.top));
    parent = start('parent', '--config', parentFile);
    const serving = await logged(parent, '"parent.up"');
    adminPort = Number(/"admin":"127\.0\.0\.1:(\d+)"/.exec(serving)?.[1]);
    guest = start('guest', '--config', guestFile);
    const up = await logged(guest, '"agent.up"');
    dnsPort = Number(/"dns":"127\.0\.0\.1:(\d+)"/.exec(up)?.[1]);
    await logged(guest, '"session.up"');
  });

  after(async () => {
    await guest?.stop();
    await parent?.stop();
    for (const server of servers) server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function startResolver(): Promise<void> {
    const elsewhere = createSocket('udp4').bind(0, ELSEWHERE);
    await once(elsewhere, 'listening');
    servers.push({ port: 0, connectionCount: () => 0, close: () => elsewhere.close() });
    const respond = (query: Buffer): Promise<Buffer> => {
      overTcp.push(nameOf(query));
      return world.exchange(query);
    };
    const onQuery: Parameters<typeof resolverServer>[0] = async (query, reply, _socket, port) => {
      const name = nameOf(query);
      overUdp.push({ name, port });
      const answer = await world.exchange(query);
      if (name === 'truncated.example') answer.writeUInt16BE(answer.readUInt16BE(2) | 0x0200, 2);
      const at = answer.indexOf(addressRdata('192.0.2.7'));
      if (name === 'forged.example' && at > 0) answer.writeUInt8(66, at + 3);
      if (name === 'elsewhere.example') elsewhere.send(answer, port, '127.0.0.1');
      else reply(answer);
    };
    const server = await resolverServer(onQuery, respond);
    servers.push(server);
    resolverPort = server.port;
  }

  function start(...words: string[]): PartyProcess {
    return new PartyProcess(words[0] ?? '', [process.execPath, POSTERN, ...words], STEP_TIMEOUT_MS);
  }

  async function resolve(name: string): Promise<DecodedPacket> {
    const socket = createSocket('udp4');
    try {
      const questions = [{ type: 'A' as const, name: `${name}.example` }];
      const answered = once(socket, 'message', { signal: AbortSignal.timeout(STEP_TIMEOUT_MS) });
      socket.send(encode({ type: 'query', id: 7, flags: 0x0120, questions }), dnsPort, '127.0.0.1');
      const [message] = (await answered) as [Buffer];
      return decode(message);
    } finally {
      socket.close();
    }
  }

  /** Resolves it and says over which ways the name itself was asked. */
  async function ways(name: string): Promise<string> {
    const answer = await resolve(name);
    assert.deepEqual(
      [
        (answer.flags ?? 0) & 0xf,
        answer.flag_ad,
        answer.answers?.flatMap((one) => (one.type === 'A' ? [one.data] : [])),
      ],
      [0, true, ['192.0.2.7']],
      name,
    );
    const asked = `${name}.example`;
    const udp = overUdp.filter((one) => one.name === asked).length > 0;
    return [...(udp ? ['UDP'] : []), ...(overTcp.includes(asked) ? ['TCP'] : [])].join(', ');
  }

  async function metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text();
    const line = text.split('\n').find((one) => one.startsWith(`postern_parent_${name}`));
    return Number(line?.split(' ').at(-1) ?? 0);
  }

  /** Reloads the parent with these protocols allowed to the resolver. */
  async function allow(...protocols: string[]): Promise<void> {
    const before = parent.log.filter((line) => line.includes('config.reloaded')).length;
    writeParent(parentFile, folder, resolverPort, protocols);
    if (parent.pid !== undefined) process.kill(parent.pid, 'SIGHUP');
    const reloads = () => parent.log.filter((line) => line.includes('config.reloaded')).length;
    await until(() => reloads() > before, 'the parent has reloaded');
  }

  it('is asked over UDP and validated, through associations of the guest', async () => {
    assert.equal(await ways('plain'), 'UDP');
    assert.equal(await ways('other'), 'UDP');
    assert.deepEqual(overTcp, []);
    assert.ok((await metric('opens_total{guest="web",direction="udp",outcome="ok"}')) >= 1);
    assert.equal(await metric('datagrams_total{guest="web",direction="out"}'), overUdp.length);
    assert.equal(await metric('datagrams_total{guest="web",direction="in"}'), overUdp.length);
  });

  it('is asked from many ports when there is much to ask', async () => {
    const answers = await Promise.all(MANY.map((name) => resolve(name)));
    assert.ok(answers.every(({ flag_ad }) => flag_ad));
    const byPort = Map.groupBy(overUdp, ({ port }) => port);
    // A question that was slow to be answered was asked twice.
    for (const asked of byPort.values())
      assert.ok(new Set(asked.map(({ name }) => name)).size <= QUESTIONS_PER_PORT);
    assert.ok(byPort.size >= MANY.length / QUESTIONS_PER_PORT);
  });

  it('is asked over TCP where the answer is truncated, or bad', async () => {
    assert.equal(await ways('truncated'), 'UDP, TCP');
    assert.equal(await ways('forged'), 'UDP, TCP');
  });

  it('is asked over TCP at once where the guard lets no datagram through', async () => {
    await allow('tcp');
    assert.equal(await ways('denied'), 'TCP');
    assert.ok((await metric('datagrams_dropped_total{guest="web",reason="denied"}')) >= 1);
    await logged(parent, '"protocol":"udp"');
    await allow('tcp', 'udp');
  });

  it('is not believed from another address', async () => {
    assert.equal(await ways('elsewhere'), 'UDP, TCP');
    assert.ok((await metric('datagrams_dropped_total{guest="web",reason="filtered"}')) >= 1);
  });

  it('is asked over TCP first for a while, once UDP has kept silent', async () => {
    assert.equal(await ways('afterwards'), 'TCP');
  });

  it('leaves no association behind when the agent stops', async () => {
    await guest.stop();
    assert.equal(await metric('associations{guest="web"}'), 0);
  });
});

function logged(party: PartyProcess, text: string): Promise<string> {
  return party.logged(text, (line) => (line.includes(text) ? line : undefined));
}

function nameOf(query: Buffer): string {
  return decode(query).questions?.[0]?.name ?? '';
}

function writeParent(file: string, folder: string, port: number, protocol: readonly string[]): void {
  const egress = { allow: [{ ip: '127.0.0.1', ports: port, protocol }] };
  const web = { listen: `unix:${join(folder, 'web')}`, egress };
  const state = join(folder, 'state');
  writeFileSync(
    file,
    stringify({ version: 1, state, admin: '127.0.0.1:0', log: { format: 'json' }, guests: { web } }),
  );
}

function writeConfigurations(folder: string, port: number, anchor: string): void {
  writeParent(join(folder, 'parent.yaml'), folder, port, ['tcp', 'udp']);
  writeFileSync(join(folder, 'anchor.ds'), anchor);
  writeFileSync(
    join(folder, 'guest.yaml'),
    stringify({
      version: 1,
      parent: `unix:${join(folder, 'web')}`,
      sessionKey: join(folder, 'closed', 'session.key'),
      resolvers: [`udp:127.0.0.1:${port}`],
      trustAnchor: 'anchor.ds',
      dns: { listen: '127.0.0.1:0' },
      proxies: { socks5: '127.0.0.1:0' },
      log: { format: 'json' },
      policy: {
        version: 1,
        egress: { allow: [{ fqdn: '*.example', ports: 80, dnssec: 'require' }] },
      },
    }),
  );
}
