import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'postern-cli-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function postern(...words: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [POSTERN, ...words], { encoding: 'utf8' });
}

describe('postern', () => {
  test('without words it shows its commands', () => {
    const { status, stdout } = postern();
    assert.equal(status, 0);
    for (const name of ['demo', 'parent', 'guest', 'policy', 'doctor'])
      assert.match(stdout, new RegExp(`^  ${name} `, 'm'));
  });

  test('--version is that of package.json', () => {
    assert.match(postern('--version').stdout, /^\d+\.\d+\.\d+\n$/);
  });

  for (const name of ['demo', 'parent', 'guest', 'policy check', 'policy explain', 'doctor']) {
    test(`${name} --help teaches with an example`, () => {
      const { status, stdout } = postern(...name.split(' '), '--help');
      assert.equal(status, 0);
      assert.match(stdout, /postern (demo|parent|guest|policy|doctor)[^\n]+/);
      assert.match(stdout, /Example/i);
    });
  }

  for (const words of [
    ['frobnicate'],
    ['parent'],
    ['parent', '--nonsense'],
    ['guest', '--config'],
    ['policy', 'explain'],
  ]) {
    test(`bad input exits with 2 and starts nothing: ${words.join(' ')}`, () => {
      const { status, stdout, stderr } = postern(...words);
      assert.equal(status, 2);
      assert.equal(stdout, '');
      assert.match(stderr, /error|postern/);
    });
  }

  for (const side of ['parent', 'guest']) {
    test(`${side}: every mistake of a configuration is listed with its path, line, expectation and finding`, () => {
      const file = join(folder, `${side}.yaml`);
      writeFileSync(
        file,
        'version: 7\nfrob: 1\nparent: vsock:x\nguests: {web: {cid: minus, egress: {}}}\nstate: here\n',
      );
      const { status, stderr } = postern(side, '--config', file);
      assert.equal(status, 2);
      const lines = stderr.split('\n').filter((line) => line.startsWith(file));
      assert.ok(lines.length >= 3, stderr);
      assert.match(stderr, /:1: version: expected .*1.*, found 7/);
      assert.match(stderr, /:2: frob: expected .*, found an unknown key/);
    });
  }
});

describe('postern doctor', () => {
  test('--json lists findings, each with a state, and changes nothing', () => {
    const { status, stdout } = postern('doctor', '--json');
    const findings = JSON.parse(stdout) as { what: string; state: string; detail: string; advice?: string }[];
    assert.ok(findings.length >= 8);
    for (const { state, advice } of findings) {
      assert.match(state, /^(ok|missing|failed)$/);
      if (state !== 'ok') assert.ok(advice, 'what is not there comes with advice');
    }
    assert.equal(status, findings.some(({ state }) => state === 'failed') ? 1 : 0);
  });

  test('a configuration needs a role, and its mistakes are a failure', () => {
    assert.equal(postern('doctor', '--config', 'x.yaml').status, 2);
    const { status, stdout } = postern('doctor', '--role', 'parent', '--config', join(folder, 'absent.yaml'));
    assert.equal(status, 1);
    assert.match(stdout, /absent\.yaml: cannot be read/);
  });

  test('with a guest’s configuration it looks at what names need as well', () => {
    const file = join(folder, 'names.yaml');
    const lines = [
      'version: 1',
      `parent: unix:${folder}/parent.sock`,
      `sessionKey: ${folder}/run/session.key`,
      'policy: { version: 1, egress: { allow: [{ fqdn: api.example.com, ports: 28090 }] } }',
      'resolvers: ["tls:192.0.2.53#dns.example.net"]',
      'dns: { listen: "127.0.0.1:28091" }',
      'capture: names',
    ];
    writeFileSync(file, lines.join('\n'));
    const { stdout } = postern('doctor', '--role', 'guest', '--config', file);
    assert.match(stdout, /✔ DNS server 127\.0\.0\.1:28091 +free for UDP and TCP/);
    assert.match(stdout, /✔ ports of captured names +1 free/);
    assert.match(stdout, /✖ \/etc\/resolv\.conf +the C library asks port 53 alone/);
    assert.match(stdout, /✔ resolver 192\.0\.2\.53:853 +TLS/);
    assert.match(stdout, /✔ trust anchor of the root +keys 20326, 38696/);
    assert.match(stdout, /✔ clock against the file/);
  });
});
