import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'postern-policy-'));
after(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

interface Run {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function postern(...args: readonly string[]): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [PROGRAM, 'policy', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    child.on('error', reject).on('close', (code) => {
      resolve({ code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() });
    });
  });
}

const POLICY = file(
  'policy.yaml',
  `version: 1
egress:
  allow:
    - { name: api, fqdn: api.example.com, ports: 443, tls: sni }
    - { name: signed, fqdn: "**.signed.example", ports: 443, dnssec: require }
    - { cidr: 198.51.100.0/24, ports: 5432, protocol: [tcp, icmp] }
    - { cidr: "2001:db8::/32", ports: 443 }
  deny:
    - { ip: 198.51.100.66 }
`,
);

/** Arguments, exit code, and what the JSON must hold. */
const EXPLAINED: readonly (readonly [string, number, Record<string, unknown>])[] = [
  ['--to api.example.com:443', 0, { verdict: 'allow', rule: 'api', reason: 'rule', tls: 'sni' }],
  ['--to API.EXAMPLE.COM.:443', 0, { verdict: 'allow', rule: 'api', name: 'api.example.com' }],
  ['--to api.example.com:80', 1, { verdict: 'deny', rule: null, reason: 'port-not-allowed' }],
  ['--to api.example.com:443 --protocol udp', 1, { reason: 'protocol-not-allowed' }],
  ['--to www.example.com:443', 1, { verdict: 'deny', rule: null, reason: 'no-rule' }],
  ['--to api.example.com:443 --address 192.0.2.1 --dnssec insecure', 0, { address: '192.0.2.1' }],
  ['--to api.example.com:443 --dnssec bogus', 1, { reason: 'dnssec-bogus', rule: 'api' }],
  ['--to api.example.com:443 --dnssec indeterminate', 1, { reason: 'dnssec-indeterminate' }],
  ['--to a.signed.example:443', 0, { rule: 'signed' }],
  ['--to a.signed.example:443 --address 192.0.2.1', 1, { reason: 'dnssec-unknown' }],
  ['--to a.signed.example:443 --address 192.0.2.1 --dnssec secure', 0, { rule: 'signed' }],
  [
    '--to api.example.com:443 --address 169.254.169.254',
    1,
    { reason: 'special-address', special: 'metadata' },
  ],
  ['--to 198.51.100.7:5432', 0, { rule: 'egress.allow[2]', address: '198.51.100.7' }],
  ['--to 198.51.100.66:5432', 1, { reason: 'denied-by-rule', rule: 'egress.deny[0]' }],
  ['--to 198.51.100.7 --protocol icmp', 0, { rule: 'egress.allow[2]' }],
  ['--to 198.51.100.7:0 --protocol icmp', 2, {}],
  ['--to [2001:db8::1]:443', 0, { rule: 'egress.allow[3]' }],
  ['--to 2852039166:443', 1, { reason: 'numeric-spelling', rule: null }],
  ['--to 0251.0376.0251.0376:80', 1, { reason: 'numeric-spelling' }],
  ['--to api.example.com:443 --address 0x7f.1', 1, { reason: 'numeric-spelling' }],
];

test('explain --json: verdict, rule and reason, and the exit code', async () => {
  for (const [args, code, expected] of EXPLAINED) {
    const run = await postern('explain', POLICY, ...args.split(' '), '--json');
    assert.equal(run.code, code, `${args}\n${run.out}${run.err}`);
    if (code === 2) continue;
    const json = JSON.parse(run.out) as Record<string, unknown>;
    for (const key of ['verdict', 'rule', 'reason']) assert.ok(key in json, `${args}: ${key}`);
    for (const [key, value] of Object.entries(expected))
      assert.deepEqual(json[key], value, `${args}: ${key}`);
  }
});

test('explain with several addresses: allow when one is allowed, each with its own verdict', async () => {
  const to = ['--to', 'api.example.com:443', '--json'];
  const mixed = await postern('explain', POLICY, ...to, '--address', '10.0.0.1', '--address', '192.0.2.1');
  assert.equal(mixed.code, 0);
  const json = JSON.parse(mixed.out) as {
    address: string;
    addresses: { address: string; verdict: string }[];
  };
  assert.equal(json.address, '192.0.2.1');
  assert.deepEqual(
    json.addresses.map(({ address, verdict }) => `${address} ${verdict}`),
    ['10.0.0.1 deny', '192.0.2.1 allow'],
  );
  const none = await postern('explain', POLICY, ...to, '--address', '10.0.0.1', '127.0.0.1');
  assert.equal(none.code, 1);
  assert.equal((JSON.parse(none.out) as { reason: string }).reason, 'special-address');
});

test('explain for a person: the rule, the reason, what would change it', async () => {
  const denied = await postern('explain', POLICY, '--to', 'www.example.com:443');
  assert.equal(denied.code, 1);
  assert.match(denied.out, /^deny: tcp to www\.example\.com:443/);
  assert.match(denied.out, /add to egress\.allow: \{ fqdn: www\.example\.com, ports: 443, protocol: tcp \}/);
  const port = await postern('explain', POLICY, '--to', 'api.example.com:80');
  assert.match(port.out, /rule api \(egress\.allow\[0\]\) allows api\.example\.com; tcp 443/);
});

test('explain: every mistake of the command line and of the file, exit code 2, nothing on standard output', async () => {
  const bad = file('bad.yaml', 'version: 1\negress: { allow: [{ fqdn: "*.com", ports: 443 }] }');
  const args = ['--to', 'http://x', '--protocol', 'tpc', '--address', 'x.y', '--dnssec', 'fine'];
  const run = await postern('explain', bad, ...args);
  assert.equal(run.code, 2);
  assert.equal(run.out, '');
  for (const path of ['--to', '--protocol', '--address[0]', '--dnssec', 'bad.yaml:2: egress.allow[0].fqdn']) {
    assert.ok(run.err.includes(path), `${path} in ${run.err}`);
  }
});

test('bad input of every kind exits with 2', async () => {
  const binary = join(folder, 'binary');
  writeFileSync(binary, Buffer.from([0xff, 0xfe, 0x00]));
  const runs: readonly (readonly string[])[] = [
    ['explain', POLICY],
    ['explain', POLICY, '--to', 'api.example.com'],
    ['explain', POLICY, '--to', 'api.example.com:0'],
    ['explain', POLICY, '--to', 'api.example.com:65536'],
    ['explain', POLICY, '--to', 'a..b:443'],
    ['explain', POLICY, '--to', ':443'],
    ['explain', POLICY, '--to', '192.0.2.1:443', '--address', '192.0.2.2'],
    ['explain', join(folder, 'missing.yaml'), '--to', 'a.example.com:1'],
    ['explain', POLICY, '--to', 'a.example.com:1', '--unknown'],
    ['check', join(folder, 'missing.yaml')],
    ['check', folder],
    ['check', binary],
    ['check'],
    ['chek', POLICY],
  ];
  for (const args of runs) {
    const run = await postern(...args);
    assert.equal(run.code, 2, `${args.join(' ')}\n${run.out}${run.err}`);
    assert.ok(!run.err.includes('    at '), `a stack trace for ${args.join(' ')}: ${run.err}`);
  }
});

test('check: what it allows, or every problem of every file', async () => {
  const good = await postern('check', POLICY);
  assert.equal(good.code, 0);
  assert.match(good.out, /valid\n {2}deny {3}198\.51\.100\.66\/32/);
  assert.match(good.out, /digest sha256:[0-9a-f]{64}/);
  const first = file('first.yaml', 'version: 1\negres: {}');
  const second = file('second.yaml', 'version: 2\ningress: [{ port: 0, to: x }]');
  const bad = await postern('check', first, POLICY, second);
  assert.equal(bad.code, 2);
  for (const text of ['first.yaml:2: egres', 'second.yaml:1: version', 'ingress[0].port', 'ingress[0].to']) {
    assert.ok(bad.err.includes(text), `${text} in ${bad.err}`);
  }
  const json = await postern('check', '--json', first, POLICY);
  assert.equal(json.code, 2);
  const report = JSON.parse(json.out) as { valid: boolean; files: { valid: boolean; problems: unknown[] }[] };
  assert.equal(report.valid, false);
  assert.deepEqual(
    report.files.map(({ valid, problems }) => [valid, problems.length]),
    [
      [false, 1],
      [true, 0],
    ],
  );
});
