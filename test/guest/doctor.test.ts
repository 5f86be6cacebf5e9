import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { stringify } from 'yaml';
import { examineGuest } from '../../guest/doctor/examine.ts';
import { resolvConfFinding } from '../../guest/doctor/resolv-conf.ts';
import { checkClock, type Finding } from '../../shared/cli/checks.ts';
import { startFixture } from './agent-fixture.ts';

/** Between the days on which the second and the third key of the root begin to sign. */
const NOW_MS = Date.UTC(2026, 8, 1);
const DAY_MS = 86_400_000;
const KSK_2010 = '. IN DS 19036 8 2 49AAC11D7B6F6446702E54A1607371607A1A41855200FD2CE1CDDE32F24E8FB5';
const KSK_2017 = '. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D';
const KSK_2024 = '. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16';

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-doctor-'));
});
after(() => rm(folder, { recursive: true, force: true }));

/** Findings by what they are about. */
type Findings = ReadonlyMap<string, Finding>;

async function examine(changes: Record<string, unknown>, nowMs = NOW_MS): Promise<Findings> {
  const file = join(folder, 'guest.yaml');
  const config = {
    version: 1,
    parent: `unix:${join(folder, 'parent.sock')}`,
    sessionKey: join(folder, 'run/session.key'),
    policy: { version: 1, egress: { allow: [] } },
    ...changes,
  };
  await writeFile(file, stringify(config));
  await utimes(file, NOW_MS / 1000, NOW_MS / 1000);
  const findings = await examineGuest(file, { resolvConf: join(folder, 'resolv.conf'), nowMs });
  return new Map(findings.map((finding) => [finding.what, finding]));
}

function stateOf(findings: Findings, what: string): string | undefined {
  return findings.get(what)?.state;
}

async function occupied(host: string, port = 0): Promise<{ server: Server; port: number }> {
  const server = createServer().listen(port, host);
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

describe('doctor of a guest: the DNS server and captured names', () => {
  it('says nothing of names where the configuration has none', async () => {
    assert.deepEqual([...(await examine({})).keys()], ['clock against the file']);
  });

  it('a port that is free for both is fine, one that is taken for either is not, with why', async () => {
    const { server, port } = await occupied('127.0.0.1');
    const names = { resolvers: ['192.0.2.53'], dns: { listen: `127.0.0.1:${port}` } };
    const what = `DNS server 127.0.0.1:${port}`;
    const taken = (await examine(names)).get(what);
    assert.equal(taken?.state, 'failed');
    assert.match(taken?.detail ?? '', /^TCP: EADDRINUSE$/);
    assert.match(taken?.advice ?? '', /ss -lntup/);
    server.close();
    await once(server, 'close');
    assert.equal(stateOf(await examine(names), what), 'ok');
    // And it was let go of.
    const udp = createSocket('udp4').bind(port, '127.0.0.1');
    await once(udp, 'listening');
    assert.match((await examine(names)).get(what)?.detail ?? '', /^UDP: EADDRINUSE$/);
    udp.close();
  });

  it('ports of captured names that somebody listens on at all addresses are told', async () => {
    const { server, port } = await occupied('0.0.0.0');
    const names = {
      resolvers: ['192.0.2.53'],
      dns: { listen: '127.0.0.1:0' },
      capture: 'names',
      policy: { version: 1, egress: { allow: [{ fqdn: 'api.example.com', ports: port }] } },
    };
    const taken = (await examine(names)).get('ports of captured names');
    assert.equal(taken?.state, 'failed');
    assert.equal(taken?.detail, `${port}: EADDRINUSE`);
    assert.match(taken?.advice ?? '', /listens on all addresses/);
    server.close();
    await once(server, 'close');
    assert.equal(stateOf(await examine(names), 'ports of captured names'), 'ok');
  });

  it('an agent that runs has its ports, which is no fault', async () => {
    const fixture = await startFixture({
      policy: 'egress: { allow: [{ ip: 192.0.2.1, ports: 1 }] }',
      resolvers: ['192.0.2.53'],
      config: 'dns: { listen: "127.0.0.1:0" }',
    });
    const [, port] = (fixture.agent.report().listeners['dns'] ?? '').split(':');
    const findings = await examine({
      statusSocket: fixture.agent.report().listeners['status'],
      resolvers: ['192.0.2.53'],
      dns: { listen: `127.0.0.1:${port}` },
    });
    await fixture.close();
    assert.match(findings.get('DNS server')?.detail ?? '', /the agent that runs here/);
  });
});

describe('doctor of a guest: /etc/resolv.conf', () => {
  const listen = { host: '127.0.0.1', port: 53 };
  const cases: [text: string | undefined, needed: string, wanted: string][] = [
    ['nameserver 127.0.0.1\noptions edns0 trust-ad\n', 'ok', 'ok'],
    ['# nothing\n', 'ok', 'ok'],
    [undefined, 'ok', 'ok'],
    ['nameserver ::ffff:127.0.0.1\n', 'failed', 'missing'],
    ['nameserver 192.0.2.1\n', 'failed', 'missing'],
    ['nameserver 192.0.2.1\nnameserver 127.0.0.1\n', 'failed', 'missing'],
    ['nameserver 127.0.0.1\nnameserver 192.0.2.1\n', 'missing', 'missing'],
    ['  nameserver 127.0.0.1 ; ours\n', 'ok', 'ok'],
    // The fourth is not read.
    ['nameserver 127.0.0.1\n'.repeat(3).concat('nameserver 192.0.2.1\n'), 'ok', 'ok'],
  ];
  for (const [index, [text, needed, wanted]] of cases.entries()) {
    it(`${JSON.stringify(text ?? 'no file')}: ${needed}`, async () => {
      const path = join(folder, `resolv-${index}.conf`);
      if (text !== undefined) await writeFile(path, text);
      const findings = await Promise.all([true, false].map((need) => resolvConfFinding(path, listen, need)));
      assert.deepEqual(
        findings.map(({ state }) => state),
        [needed, wanted],
      );
      for (const { state, advice } of findings) assert.equal(advice === undefined, state === 'ok');
    });
  }

  it('a port that the C library never asks is told', async () => {
    const finding = await resolvConfFinding(join(folder, 'none'), { host: '127.0.0.1', port: 5353 }, true);
    assert.equal(finding.state, 'failed');
    assert.match(finding.advice ?? '', /listen: 127\.0\.0\.1:53/);
  });
});

describe('doctor of a guest: resolvers, trust, clock', () => {
  it('says what the parent has to let through, and which addresses it lets through only by name', async () => {
    const resolvers = ['tls:192.0.2.53#dns.example.net', 'udp:169.254.169.253', '[::1]:5353'];
    const findings = await examine({ resolvers });
    assert.match(
      findings.get('resolver 192.0.2.53:853')?.detail ?? '',
      /TLS; the parent's egress must let tcp/,
    );
    const local = findings.get('resolver 169.254.169.253:53');
    assert.equal(local?.state, 'missing');
    assert.match(local?.advice ?? '', /\{ ip: "169\.254\.169\.253", ports: 53, protocol: \[udp, tcp\] \}/);
    assert.equal(stateOf(findings, 'resolver [::1]:5353'), 'missing');
  });

  async function root(anchors: string, nowMs: number, more: object = {}): Promise<Finding | undefined> {
    await writeFile(join(folder, 'root.anchor'), anchors);
    const config = { resolvers: ['192.0.2.53'], trustAnchor: 'root.anchor', ...more };
    return (await examine(config, nowMs)).get('trust anchor of the root');
  }

  it('a trust anchor is of a key that signs the root on this day', async () => {
    const late = Date.UTC(2026, 10, 21);
    assert.equal((await root(KSK_2017, NOW_MS))?.state, 'ok');
    const old = await root(KSK_2017, late);
    assert.equal(old?.state, 'failed');
    assert.match(old?.detail ?? '', /on 2026-11-21: 20326 from 2018-10-11 to 2026-10-11/);
    assert.match(old?.advice ?? '', /trustAnchor/);
    assert.equal((await root(`${KSK_2017}\n${KSK_2024}`, late))?.state, 'ok');
    assert.equal((await root(KSK_2024, NOW_MS))?.state, 'failed');
    assert.equal((await root(KSK_2010, NOW_MS))?.state, 'failed');
    // A root of one's own, or a key that is newer than this program.
    assert.equal((await root(KSK_2017.replace('20326', '4711'), late))?.state, 'ok');
    const shipped = await examine({ resolvers: ['192.0.2.53'] }, late);
    assert.equal(stateOf(shipped, 'trust anchor of the root'), 'ok');
  });

  it('anchors that lead nowhere, or take everything as unsigned, are told', async () => {
    const only = await root(KSK_2017.replace('.', 'private.example.'), NOW_MS);
    assert.equal(only?.state, 'missing');
    assert.match(only?.detail ?? '', /only of private\.example/);
    assert.equal((await root(KSK_2017, NOW_MS, { negativeTrustAnchors: ['.'] }))?.state, 'missing');
    await writeFile(join(folder, 'root.anchor'), KSK_2017.replace(' 8 2 ', ' 200 2 '));
    const unusable = await examine({ resolvers: ['192.0.2.53'], trustAnchor: 'root.anchor' });
    assert.equal(stateOf(unusable, 'trust anchor of .'), 'failed');
  });

  it('a clock that is behind the configuration, before this program or far ahead is wrong', async () => {
    const what = 'clock against the file';
    assert.equal(stateOf(await examine({}, NOW_MS), what), 'ok');
    assert.equal(stateOf(await examine({}, NOW_MS - 2 * DAY_MS), what), 'failed');
    assert.equal(checkClock(Date.UTC(2027, 0, 1)).state, 'ok');
    assert.equal(checkClock(Date.UTC(1970, 0, 1)).state, 'failed');
    assert.equal(checkClock(Date.UTC(2106, 1, 7)).state, 'failed');
  });
});
