import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { stringify } from 'yaml';
import { selfSignedCertificate } from '../../../shared/demo/certificate.ts';
import { PartyProcess } from '../../../shared/demo/party.ts';
import { programPath } from '../../../shared/demo/stage.ts';
import type { Attempt } from '../../../shared/demo/workload.ts';
import { REPOSITORY } from '../kernel.ts';
import type { CapturedResult } from './captured.ts';
import { requireVm } from './guard.ts';
import type { RogueResult } from './rogue.ts';

requireVm();

const WORLD = '203.0.113.10';
const NOBODY = '65534';
/** Node starts some twenty times slower here. */
const STEP_TIMEOUT_MS = 120_000;
const POSTERN = `${REPOSITORY}/shared/cli/postern.ts`;
const folder = mkdtempSync('/tmp/gate-');
const closed = `${folder}/closed`;
const certificate = `${folder}/world.crt`;
const parties: PartyProcess[] = [];
let namespace: ChildProcess | undefined;

/** In the guest's network namespace, which has only lo. AF_VSOCK knows no namespaces, as in a real guest. */
function inGuest(...words: string[]): string[] {
  return ['nsenter', `--net=/proc/${namespace?.pid}/ns/net`, ...words];
}

function start(name: string, words: readonly string[]): PartyProcess {
  const party = new PartyProcess(name, words, STEP_TIMEOUT_MS);
  parties.push(party);
  return party;
}

describe('the gate over AF_VSOCK', () => {
  let parent: PartyProcess;
  let guest: PartyProcess;

  before(async () => {
    mkdirSync(closed, { mode: 0o700 });
    execFileSync('chmod', ['755', folder]);
    execFileSync('ip', ['address', 'add', `${WORLD}/32`, 'dev', 'lo']);
    namespace = spawn('unshare', ['--net', 'sh', '-c', 'ip link set lo up && echo up && exec cat']);
    if (namespace.stdout) await once(namespace.stdout, 'data');
    writeConfigurations();
    const files = [certificate, `${folder}/world.key`];
    await start('world', [process.execPath, programPath('world'), WORLD, '443', '53', ...files]).line();
    parent = start('parent', [process.execPath, POSTERN, 'parent', '--config', `${folder}/parent.yaml`]);
    await parent.logged('that it serves', (line) => (line.includes('"serving"') ? line : undefined));
    const workload = [process.execPath, programPath('workload'), WORLD, '443', '18080'];
    const words = [process.execPath, POSTERN, 'guest', '--config', `${folder}/guest.yaml`, '--', ...workload];
    guest = start('guest', inGuest(...words));
  });

  after(async () => {
    for (const party of parties.reverse()) await party.stop();
    namespace?.stdin?.end();
  });

  it('the guest has no network but lo', () => {
    const [program = '', ...rest] = inGuest('ip', '-o', 'link');
    assert.match(execFileSync(program, rest, { encoding: 'utf8' }), /^1: lo: [^\n]*\n$/);
  });

  it('an allowed fetch over TLS, three refusals with reasons, and no way around', async () => {
    const attempts: Attempt[] = [];
    for (;;) {
      const attempt = JSON.parse(await guest.line()) as Attempt;
      if (attempt.step === 'serving') break;
      attempts.push(attempt);
    }
    assert.deepEqual(
      attempts.map(({ step, result }) => `${step} ${result.replace(/postern; error=[a-z_]+; /, '')}`),
      [
        `allowed 200 hello from the internet to ${WORLD}`,
        'refused 403 details="no-rule"',
        'refused 403 details="port-not-allowed"',
        'refused 403 details="no-lease"',
        'direct ENETUNREACH',
      ],
    );
  });

  it('the name was resolved over UDP, through an association', async () => {
    assert.match(await metric('datagrams_total{guest="vm",direction="in"}'), / [1-9]\d*$/);
    assert.match(await metric('opens_total{guest="vm",direction="udp",outcome="ok"}'), / [1-9]\d*$/);
  });

  it('a program that knows of no proxy is captured by name, and has no other name or port', async () => {
    const program = `${REPOSITORY}/test/vm/inside/captured.ts`;
    const captured = start('captured', inGuest(process.execPath, program, '443', certificate));
    const results: Record<string, string> = {};
    for (let count = 0; count < 2; count += 1) {
      const { name, outcome } = JSON.parse(await captured.line()) as CapturedResult;
      results[name] = outcome;
    }
    assert.match(results['api.example.com'] ?? '', /^127\.100\.\d+\.\d+ 200 hello from the internet to /);
    assert.equal(results['evil.example.net'], 'EREFUSED');
  });

  it('a client from outside reaches the workload through the forwarded port', async () => {
    const client = start('client', [process.execPath, programPath('client'), `http://${WORLD}:8080/`]);
    assert.equal(await client.line(), '200 hello from inside the enclave');
  });

  it('a rogue in the guest that opens vsock itself is refused, audited and counted', async () => {
    const user = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
    const program = `${REPOSITORY}/test/vm/inside/rogue.ts`;
    const rogue = start('rogue', inGuest('setpriv', ...user, process.execPath, program, WORLD));
    const results: Record<string, string> = {};
    for (let count = 0; count < 5; count += 1) {
      const { attempt, outcome } = JSON.parse(await rogue.line()) as RogueResult;
      results[attempt] = outcome;
    }
    assert.deepEqual(results, {
      'a tcp flow with a key of its own': 'unproven',
      'a session of its own': 'taken',
      'bytes of no protocol': 'malformed',
      'an object stream': 'unproven',
      'an inbound stream to the agent': 'unproven',
    });
    const refused = await metric('streams_refused_total{');
    assert.match(refused, /reason="unproven"\} [1-9]/);
    assert.match(refused, /reason="taken"\} 1/);
    await parent.logged('the audit of the rogue', (line) => (line.includes('unproven') ? line : undefined));
    // And the agent's own session is none the worse for it.
    const client = start('client', [process.execPath, programPath('client'), `http://${WORLD}:8080/`]);
    assert.equal(await client.line(), '200 hello from inside the enclave');
  });

  it('when the agent is gone, the rogue cannot take its place', async () => {
    await guest.stop();
    const rogue = start('rogue', inGuest(process.execPath, `${REPOSITORY}/test/vm/inside/rogue.ts`, WORLD));
    const outcomes: string[] = [];
    for (let count = 0; count < 2; count += 1)
      outcomes.push((JSON.parse(await rogue.line()) as RogueResult).outcome);
    assert.deepEqual(outcomes, ['unregistered', 'taken']);
  });
});

async function metric(name: string): Promise<string> {
  const text = await (await fetch('http://127.0.0.1:9464/metrics')).text();
  return text
    .split('\n')
    .filter((line) => line.includes(name))
    .join('\n');
}

function writeConfigurations(): void {
  const pair = selfSignedCertificate('api.example.com');
  writeFileSync(certificate, pair.certificate);
  writeFileSync(`${folder}/world.key`, pair.privateKey);
  writeFileSync(
    `${folder}/parent.yaml`,
    stringify({
      version: 1,
      state: `${closed}/state`,
      listen: 'vsock:ANY:5000',
      drainTimeoutMs: 1000,
      log: { format: 'json' },
      guests: {
        vm: {
          cid: 1,
          agent: 'vsock:1:5001',
          egress: {
            allow: [
              { ip: WORLD, ports: 443 },
              { ip: WORLD, ports: 53, protocol: ['udp', 'tcp'] },
            ],
          },
          forwards: [{ listen: `${WORLD}:8080`, to: 8080 }],
        },
      },
    }),
  );
  writeFileSync(
    `${folder}/guest.yaml`,
    stringify({
      version: 1,
      parent: 'vsock:1:5000',
      listen: 'vsock:ANY:5001',
      sessionKey: `${closed}/session.key`,
      proxies: { http: '127.0.0.1:3128', socks5: '127.0.0.1:1080' },
      resolvers: [`udp:${WORLD}`],
      dns: { listen: '127.0.0.1:53' },
      capture: 'names',
      negativeTrustAnchors: ['example.com'],
      log: { format: 'json' },
      policy: {
        version: 1,
        egress: { allow: [{ name: 'the one api', fqdn: 'api.example.com', ports: 443 }] },
        ingress: [{ port: 8080, to: '127.0.0.1:18080' }],
      },
      workload: {
        user: Number(NOBODY),
        group: Number(NOBODY),
        environment: { NODE_USE_ENV_PROXY: '1', NODE_EXTRA_CA_CERTS: certificate },
      },
    }),
  );
}
