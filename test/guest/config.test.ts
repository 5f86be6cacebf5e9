import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { EVENTS } from '../../guest/audit.ts';
import { loadGuestConfig } from '../../guest/config/load.ts';
import { guestSchema } from '../../guest/config/schema.ts';
import { isPosternError, type PosternError } from '../../shared/errors.ts';
import { scratch } from './fake-parent.ts';

const GOOD = `version: 1
parent: vsock:3:5000
policy: policy.yaml
sessionKey: /run/postern/session.key
proxies: {socks5: "127.0.0.1:1080", http: "[::1]:3128"}
resolvers: [192.0.2.53, "2001:DB8:0::53", "192.0.2.53:5353", "udp:[::FFFF:192.0.2.53]:853"]
`;
const POLICY = 'version: 1\negress: {allow: [{fqdn: api.example.com, ports: 443}]}\n';

describe('docs/configuration.md', () => {
  it('lists the events of the log, and the keys of the schema', async () => {
    const page = await readFile(new URL('../../docs/configuration.md', import.meta.url), 'utf8');
    const text = page.slice(page.indexOf('\n## Guest'), page.indexOf('\n## Parent'));
    const lines = text.matchAll(/^\| `([a-z]+\.[a-z]+)` +\| (?:debug|info|warn|error)/gm);
    assert.deepEqual(
      [...lines].map((match) => match[1]),
      [...EVENTS],
    );
    for (const key of Object.keys(guestSchema.entries)) assert.ok(text.includes(`\`${key}`), key);
  });
});

describe('the guest’s configuration', () => {
  let folder: string;
  let remove: () => Promise<void>;
  before(async () => {
    ({ folder, remove } = await scratch());
  });
  after(() => remove());

  async function load(guest: string, policy = POLICY) {
    await writeFile(join(folder, 'policy.yaml'), policy);
    await writeFile(join(folder, 'guest.yaml'), guest);
    return loadGuestConfig(join(folder, 'guest.yaml'));
  }

  async function problemsOf(guest: string, policy = POLICY): Promise<PosternError> {
    const error = await load(guest, policy).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    assert.ok(isPosternError(error), 'it must be refused');
    return error;
  }

  it('is read with its policy, with defaults, and frozen', async () => {
    const config = await load(GOOD);
    assert.deepEqual(config.parent, { kind: 'vsock', cid: 3, port: 5000 });
    assert.deepEqual(
      config.resolvers.map(({ address, port }) => `${address} ${port}`),
      ['192.0.2.53 53', '2001:db8::53 53', '192.0.2.53 5353', '192.0.2.53 853'],
    );
    assert.equal(config.statusSocket, '/run/postern/guest.sock');
    assert.equal(config.workload.gateTimeoutSeconds, 60);
    assert.equal(config.workload.allowPrivilegeGain, false);
    assert.equal(config.policy.egress.allow[0]?.fqdn[0], 'api.example.com');
    assert.ok(Object.isFrozen(config) && Object.isFrozen(config.workload) && Object.isFrozen(config.policy));
  });

  it('takes the policy inline', async () => {
    const inline = GOOD.replace('policy.yaml', '{version: 1, egress: {allow: [{ip: 192.0.2.7, ports: 80}]}}');
    assert.equal((await load(inline)).policy.egress.allow[0]?.label, 'egress.allow[0]');
  });

  it('lists every mistake of both files at once, with their paths', async () => {
    const bad = `version: 2
parent: tcp:1.2.3.4:5
policy: policy.yaml
sessionKey: relative.key
proxies: {socks5: "0.0.0.0:1080", http: "example.com:3128"}
resolvers: [dns.example]
workload: {user: "a b", gateTimeoutSeconds: 0, environment: {"1X": y}}
extra: 1
`;
    const error = await problemsOf(bad, 'version: 1\negress: {allow: [{fqdn: "*", ports: 0}]}\nmore: 1\n');
    assert.equal(error.code, 'ERR_CONFIG_INVALID');
    const paths = error.problems.map(({ path }) => path);
    for (const path of [
      'version',
      'parent',
      'sessionKey',
      'proxies.socks5',
      'proxies.http',
      'resolvers[0]',
      'workload.user',
      'workload.gateTimeoutSeconds',
      'extra',
      'egress.allow[0].fqdn',
      'egress.allow[0].ports',
      'more',
    ]) {
      assert.ok(paths.includes(path), `${path} of ${paths.join(', ')}`);
    }
    assert.ok(error.problems.every(({ found, expected }) => found !== '' && expected !== ''));
  });

  it('says where a mistake in an inline policy is', async () => {
    const error = await problemsOf(
      GOOD.replace('policy.yaml', '{version: 1, egress: {allow: [{ip: x, ports: 80}]}}'),
    );
    assert.match(error.message, /guest\.yaml:3: policy\.egress\.allow\[0\]\.ip: expected /);
  });

  it('must fit its policy', async () => {
    const without = (key: string): string => GOOD.replace(new RegExp(`^${key}:.*\n`, 'm'), '');
    const cases: [name: string, guest: string, policy: string, path: string][] = [
      ['names without resolvers', without('resolvers'), POLICY, 'resolvers'],
      ['egress without proxies', without('proxies'), POLICY, 'proxies'],
      [
        'ingress without listen',
        GOOD,
        'version: 1\ningress: [{port: 443, to: "127.0.0.1:8443"}]\n',
        'listen',
      ],
      ['one port for two proxies', GOOD.replace('[::1]:3128', '127.0.0.1:1080'), POLICY, 'proxies.http'],
    ];
    for (const [name, guest, policy, path] of cases) {
      assert.deepEqual(
        (await problemsOf(guest, policy)).problems.map((problem) => problem.path),
        [path],
        name,
      );
    }
  });

  it('takes encrypted resolvers with the name to authenticate, anchors, leases and the DNS server', async () => {
    await writeFile(join(folder, 'anchor.ds'), `private.example. IN DS 1 13 2 ${'ab'.repeat(32)}\n`);
    const encrypted = '[tls:192.0.2.53#dns.example.net, "https:[2001:DB8::53]:8443#dns.example.net/q"]';
    const more = `trustAnchor: anchor.ds
negativeTrustAnchors: [Corp.Example., .]
leases: {floorSeconds: 0, graceSeconds: 600}
dns: {listen: "127.0.0.1:53"}
capture: names
`;
    const config = await load(GOOD.replace(/^resolvers: .*$/m, `resolvers: ${encrypted}`) + more);
    assert.deepEqual(config.resolvers, [
      { protocol: 'tls', address: '192.0.2.53', port: 853, serverName: 'dns.example.net' },
      { protocol: 'https', address: '2001:db8::53', port: 8443, serverName: 'dns.example.net', path: '/q' },
    ]);
    assert.deepEqual(config.negativeTrustAnchors, ['corp.example', '.']);
    assert.equal(config.trustAnchors[0]?.name.toString(), 'private.example.');
    assert.deepEqual(config.dns, { listen: { host: '127.0.0.1', port: 53 } });
  });

  it('refuses resolvers, anchors and captures that cannot work', async () => {
    await writeFile(join(folder, 'wrong.ds'), 'nonsense\n');
    const wide = 'version: 1\negress: {allow: [{fqdn: api.example.com, ports: "1-1000"}]}\n';
    const cases: [name: string, guest: string, message: RegExp, policy?: string][] = [
      ['udp', GOOD.replace('192.0.2.53,', '"udp:192.0.2.53#dns.test",'), /resolvers\[0\].*udp:192/],
      ['no name to authenticate', GOOD.replace('192.0.2.53,', '"tls:192.0.2.53",'), /resolvers\[0\]/],
      ['a zone of an address', GOOD.replace('192.0.2.53,', '"fe80::1%eth0",'), /resolvers\[0\]/],
      ['an anchor that is none', `${GOOD}trustAnchor: wrong.ds\n`, /wrong\.ds:1: expected a DS or DNSKEY/],
      ['an anchor that is missing', `${GOOD}trustAnchor: none.ds\n`, /none\.ds: cannot be read/],
      ['certificates that are none', `${GOOD}resolverCertificates: wrong.ds\n`, /PEM/],
      ['DNS for others', `${GOOD}dns: {listen: "0.0.0.0:53"}\n`, /dns\.listen/],
      ['capture without DNS', `${GOOD}capture: names\n`, /dns\.listen/],
      ['too many ports', `${GOOD}dns: {listen: "127.0.0.1:53"}\ncapture: names\n`, /at most 256 ports/, wide],
      ['negative leases', `${GOOD}leases: {graceSeconds: -1}\n`, /leases\.graceSeconds/],
    ];
    for (const [name, guest, message, policy] of cases)
      assert.match((await problemsOf(guest, policy)).message, message, name);
  });

  it('must not listen for others', async () => {
    for (const address of [
      '0.0.0.0:1080',
      '[::]:1080',
      '192.0.2.1:1080',
      'localhost:1080',
      '127.0.0.1',
      '127.1:1080',
      '[::ffff:127.0.0.1]:1',
      '127.0.0.1:70000',
    ]) {
      await problemsOf(GOOD.replace('127.0.0.1:1080', address));
    }
  });

  it('must name files that are there', async () => {
    assert.equal(
      (await problemsOf(GOOD.replace('policy.yaml', 'missing.yaml'))).code,
      'ERR_CONFIG_UNREADABLE',
    );
    await assert.rejects(loadGuestConfig(join(folder, 'missing.yaml')), { code: 'ERR_CONFIG_UNREADABLE' });
  });
});
