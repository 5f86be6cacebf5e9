import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import * as v from 'valibot';
import { createKeyProvider, KeyProviderSchema } from '../../guest/volume/key-provider.ts';

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-keys-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const SALT = Buffer.alloc(16, 3);
const HEX = 'ab'.repeat(32);

test('a key file holds 64 hex digits or 32 bytes', async () => {
  const path = join(folder, 'key');
  const provider = createKeyProvider({ kind: 'file', path }, {});
  for (const content of [HEX, `${HEX}\n`, Buffer.from(HEX, 'hex')]) {
    await writeFile(path, content);
    assert.deepEqual(await provider.rootKey(SALT), Buffer.from(HEX, 'hex'));
  }
  for (const content of ['', 'short', `${HEX}00`, Buffer.alloc(31), Buffer.alloc(5000)]) {
    await writeFile(path, content);
    await assert.rejects(provider.rootKey(SALT), { code: 'ERR_VOLUME_KEY' });
  }
});

test('what is missing is an error, and never another provider', async () => {
  const missing = { code: 'ERR_VOLUME_KEY' };
  await assert.rejects(
    createKeyProvider({ kind: 'file', path: join(folder, 'none') }, {}).rootKey(SALT),
    missing,
  );
  await assert.rejects(createKeyProvider({ kind: 'env', variable: 'KEY' }, {}).rootKey(SALT), missing);
  await assert.rejects(
    createKeyProvider({ kind: 'passphrase', path: join(folder, 'none') }, {}).rootKey(SALT),
    missing,
  );
});

test('an environment variable holds the same hex digits', async () => {
  const provider = createKeyProvider({ kind: 'env', variable: 'VOLUME_KEY' }, { VOLUME_KEY: HEX });
  assert.deepEqual(await provider.rootKey(SALT), Buffer.from(HEX, 'hex'));
});

test('a passphrase gives the same key for the same salt and however it was typed', async () => {
  const path = join(folder, 'phrase');
  const provider = createKeyProvider({ kind: 'passphrase', path }, {});
  await writeFile(path, 'caf\u00e9 at the harbour\n');
  const key = await provider.rootKey(SALT);
  await writeFile(path, 'cafe\u0301 at the harbour');
  assert.deepEqual(await provider.rootKey(SALT), key);
  assert.notDeepEqual(await provider.rootKey(Buffer.alloc(16)), key);
  await writeFile(path, 'too short');
  await assert.rejects(provider.rootKey(SALT), { code: 'ERR_VOLUME_KEY' });
});

test('the configuration names exactly one provider', () => {
  for (const config of [
    { kind: 'file' },
    { kind: 'kms' },
    {},
    { kind: 'env', variable: 'lower' },
    { kind: 'file', path: 'x', variable: 'Y' },
  ]) {
    assert.equal(v.safeParse(KeyProviderSchema, config).success, false);
  }
});
