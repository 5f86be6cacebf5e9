import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { compilePolicy } from '../../shared/policy/compile.ts';
import { decide } from '../../shared/policy/decide.ts';
import { decideIngress } from '../../shared/policy/ingress.ts';
import { readPolicy } from '../../shared/policy/policy.ts';
import type { To } from './deciding.ts';

const FOLDER = new URL('../../policies/', import.meta.url);

interface Intent {
  readonly allowed: readonly To[];
  readonly refused: readonly To[];
}

const PUBLIC = { address: '198.51.100.1' };

/** What each example is for, and what it must never let out. */
const INTENTS: Readonly<Record<string, Intent>> = {
  'deny-all.yaml': {
    allowed: [],
    refused: [
      { name: 'api.example.com' },
      { address: '192.0.2.1' },
      { address: '127.0.0.1', protocol: 'icmp' },
    ],
  },
  'one-api.yaml': {
    allowed: [{ name: 'api.example.com' }, { name: 'API.example.com.', ...PUBLIC, dnssec: 'secure' }],
    refused: [
      { name: 'api.example.com', port: 80 },
      { name: 'www.example.com' },
      { name: 'api.example.com', address: '169.254.169.254' },
      { name: 'api.example.com', ...PUBLIC, dnssec: 'bogus' },
      PUBLIC,
    ],
  },
  'aws-services.yaml': {
    allowed: [
      { name: 'kms.eu-central-1.amazonaws.com', ...PUBLIC, dnssec: 'insecure' },
      { name: 's3.eu-central-1.amazonaws.com' },
      { name: 'bucket.s3.eu-central-1.amazonaws.com' },
    ],
    refused: [
      { name: 'a.b.s3.eu-central-1.amazonaws.com' },
      { name: 'kms.us-east-1.amazonaws.com' },
      { address: '169.254.169.254', port: 80 },
      { address: 'fd00:ec2::254', port: 80 },
    ],
  },
  'package-mirror.yaml': {
    allowed: [
      { name: 'deb.debian.org', port: 80 },
      { name: 'registry.npmjs.org' },
      { name: 'mirror.example.com' },
      { name: 'eu.pypi.mirror.example.com', port: 8444 },
    ],
    refused: [
      { name: 'registry.npmjs.org', port: 80 },
      { name: 'upload.mirror.example.com' },
      { name: 'eu.upload.mirror.example.com' },
      { name: 'example.com' },
    ],
  },
  'private-database.yaml': {
    allowed: [
      { address: '10.20.0.7', port: 5432 },
      { name: 'main.db.corp.internal', port: 5432, address: '10.20.0.7' },
      { address: '10.20.1.11', port: 26_380 },
      { address: '10.20.9.9', protocol: 'icmp' },
    ],
    refused: [
      { address: '10.20.0.250', port: 5432 },
      { address: '::ffff:10.20.0.250', port: 5432 },
      { address: '10.20.0.250', protocol: 'icmp' },
      { name: 'main.db.corp.internal', port: 5432, address: '10.20.1.10' },
      { name: 'main.db.corp.internal', port: 5432, address: '127.0.0.1' },
      { address: '10.20.0.7', port: 22 },
    ],
  },
  'web-service.yaml': {
    allowed: [{ name: 'login.example.com', ...PUBLIC }],
    refused: [{ name: 'example.com' }, PUBLIC],
  },
};

test('every example has its intent written down here', () => {
  assert.deepEqual(readdirSync(FOLDER).sort(), Object.keys(INTENTS).sort());
});

for (const [file, { allowed, refused }] of Object.entries(INTENTS)) {
  test(`${file} allows what it is for and refuses the rest`, async () => {
    const policy = compilePolicy(await readPolicy(new URL(file, FOLDER).pathname));
    const verdict = (to: To): string => decide(policy, { protocol: 'tcp', port: 443, ...to }).verdict;
    for (const to of allowed) assert.equal(verdict(to), 'allow', JSON.stringify(to));
    for (const to of refused) assert.equal(verdict(to), 'deny', JSON.stringify(to));
  });
}

test('web-service.yaml: who may come in', async () => {
  const policy = compilePolicy(await readPolicy(new URL('web-service.yaml', FOLDER).pathname));
  const arrive = (port: number, client: string) =>
    decideIngress(policy, { protocol: 'tcp', port, client }).verdict;
  assert.equal(arrive(443, '192.0.2.1'), 'allow');
  assert.equal(arrive(9090, '198.51.100.1'), 'allow');
  assert.equal(arrive(9090, '192.0.2.1'), 'deny');
  assert.equal(arrive(22, '198.51.100.1'), 'deny');
});
