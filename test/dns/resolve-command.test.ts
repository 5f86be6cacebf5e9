import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { explain } from '../../guest/dns/explain.ts';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { addressRdata, nameRdata } from './encode.ts';
import { type RunningServer, udpServer } from './servers.ts';
import { dsRdata, NOW } from './signer.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

const PROGRAM = join(import.meta.dirname, '../../shared/cli/postern.ts');

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(...args: string[]): Promise<Run> {
  return new Promise((resolve) => {
    execFile(process.execPath, [PROGRAM, 'resolve', ...args], (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
    });
  });
}

describe('postern resolve', () => {
  let server: RunningServer;
  let folder: string;
  let common: string[];

  before(async () => {
    const root = new TestZone('.');
    const zone = new TestZone('example.');
    zone
      .add('www.example.', TYPE.A, addressRdata('192.0.2.1'))
      .add('a.example.', TYPE.CNAME, nameRdata('www.example.'));
    const plain = new TestZone('plain.example.', { signed: false }).add(
      'www.plain.example.',
      TYPE.A,
      addressRdata('192.0.2.2'),
    );
    const world = new TestWorld(root, zone, plain);
    server = await udpServer(async (query, reply) => reply(await world.exchange(query)));
    folder = mkdtempSync(join(tmpdir(), 'postern-resolve-'));
    const [key] = root.keys;
    assert.ok(key);
    const ds = dsRdata(DomainName.parse('.'), key);
    const anchor = join(folder, 'root.anchor');
    writeFileSync(anchor, `. IN DS ${key.keyTag} 13 2 ${ds.subarray(4).toString('hex')} ; ours\n`);
    common = ['--server', `127.0.0.1:${server.port}`, '--trust-anchor', anchor, '--at', String(NOW)];
  });

  after(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test('options may stand before or behind; one JSON object', async () => {
    const { code, stdout } = await run(...common, '--json', 'a.example', 'A');
    assert.equal(code, 0);
    assert.equal(stdout.trim().split('\n').length, 1);
    const verdict = JSON.parse(stdout) as Record<string, unknown>;
    assert.equal(verdict['status'], 'secure');
    assert.equal(verdict['rcode'], 'NOERROR');
    assert.deepEqual(verdict['answers'], [
      { name: 'a.example.', type: 'CNAME', ttl: 3600, data: 'www.example.' },
      { name: 'www.example.', type: 'A', ttl: 3600, data: '192.0.2.1' },
    ]);
    assert.deepEqual(
      (verdict['chain'] as { zone: string }[]).map(({ zone }) => zone),
      ['.', 'example.'],
    );
    const behind = await run('www.plain.example', 'A', ...common);
    assert.equal((JSON.parse(behind.stdout) as { status: string }).status, 'insecure');
  });

  test('--explain draws the chain, and where it ends', async () => {
    const { stdout } = await run('www.plain.example', '--explain', ...common);
    assert.match(stdout, /^www\.plain\.example\. A: insecure, NOERROR/);
    assert.match(stdout, /└─ \. {2}trust anchor \d+ \(ECDSAP256SHA256\)/);
    assert.match(stdout, /└─ example\. {2}DS \d+ .* in \.; its keys are signed by/);
    assert.match(stdout, /└─ plain\.example\. {2}INSECURE: example\. proves that plain\.example\. has no DS/);
  });

  test('--explain shows how far a chain that breaks held', async () => {
    const broken = new TestZone('broken.').add('www.broken.', TYPE.A, addressRdata('192.0.2.1'));
    broken.signing = { inception: NOW - 1000, expiration: NOW - 10 };
    const verdict = await new TestWorld(new TestZone('.'), broken).ask('www.broken.', TYPE.A);
    const text = explain(verdict);
    assert.match(text, /^www\.broken\. A: bogus, SERVFAIL\nbecause .* expired at /);
    assert.match(text, /└─ \. {2}trust anchor .*\n {5}✗ here the chain breaks\n$/);
  });

  test('bogus is exit code 1 with its reason', async () => {
    const late = [...common.slice(0, -1), String(NOW + 365 * 86_400)];
    const { code, stdout } = await run('www.example', ...late);
    assert.equal(code, 1);
    const verdict = JSON.parse(stdout) as { status: string; reason: string; answers: unknown[] };
    assert.equal(verdict.status, 'bogus');
    assert.match(verdict.reason, /expired at .* is this clock right\?/);
    assert.deepEqual(verdict.answers, []);
  });

  test('bad input is exit code 2, before anything is asked', async () => {
    const wrong = join(folder, 'wrong.anchor');
    writeFileSync(wrong, 'example. IN DS nonsense\n. IN DS 1 13 2 00\nwww IN A 192.0.2.1\n');
    for (const args of [
      ['a..b', ...common],
      ['www.example', 'NOTYPE', ...common],
      ['www.example', '--server', 'dns.test'],
      ['www.example', ...common, '--at', 'now'],
      ['www.example', ...common, '--trust-anchor', join(folder, 'none')],
      ['www.example', '--server', '127.0.0.1', '--trust-anchor', wrong],
    ]) {
      const { code, stdout, stderr } = await run(...args);
      assert.equal(code, 2, args.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, /ERR_/);
    }
    const { stderr } = await run('www.example', '--server', '127.0.0.1', '--trust-anchor', wrong);
    assert.match(stderr, /wrong\.anchor:1: .*\n.*wrong\.anchor:3: /);
  });
});
