import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { hashKey, openClaims } from '../../../parent/session/claims.ts';

const folder = await mkdtemp(join(tmpdir(), 'postern-claims-'));
after(() => rm(folder, { recursive: true }));
let count = 0;

async function freshClaims() {
  count += 1;
  const directory = join(folder, `state-${count}`);
  return { directory, claims: await openClaims(directory) };
}

test('remembers across instances, forgets on request, and knows nothing of guests it has not seen', async () => {
  const { directory, claims } = await freshClaims();
  const hash = hashKey(randomBytes(32));
  for (const identity of ['cid:16', 'unix:/run/postern/web.sock']) {
    assert.equal(await claims.recall(identity), undefined);
    await claims.remember(identity, hash);
    assert.ok((await (await openClaims(directory)).recall(identity))?.equals(hash));
    await claims.forget(identity);
    await claims.forget(identity);
    assert.equal(await claims.recall(identity), undefined);
  }
});

test('writes small private files without the key, and leaves nothing half-written', async () => {
  const { directory, claims } = await freshClaims();
  const key = randomBytes(32);
  await claims.remember('cid:16', hashKey(key));
  await writeFile(join(directory, 'cid-16.json.new'), 'a crash left this');
  await claims.remember('cid:16', hashKey(key));
  assert.deepEqual(await readdir(directory), ['cid-16.json']);
  const file = join(directory, 'cid-16.json');
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.equal((await stat(directory)).mode & 0o777, 0o700);
  const text = await readFile(file, 'utf8');
  assert.equal(text.includes(key.toString('hex')), false);
});

test('a file that is there and cannot be understood is an error, never a first boot', async () => {
  const { directory, claims } = await freshClaims();
  await claims.remember('cid:16', hashKey(randomBytes(32)));
  const file = join(directory, 'cid-16.json');
  const whole = await readFile(file, 'utf8');
  const wrong = [
    '',
    '{}',
    'null',
    whole.slice(0, -4),
    whole.replace('"version":1', '"version":2'),
    whole.replace('cid:16', 'cid:17'),
    whole.replace(/"keySha256":"../, '"keySha256":"'),
    whole.replace('{', '{"more":1,'),
    `${whole}${' '.repeat(5000)}`,
  ];
  for (const text of wrong) {
    await writeFile(file, text);
    await assert.rejects(
      claims.recall('cid:16'),
      { code: 'ERR_SESSION_STATE' },
      JSON.stringify(text.slice(0, 80)),
    );
  }
  await rm(file);
  await mkdir(file);
  await assert.rejects(claims.recall('cid:16'), { code: 'ERR_SESSION_STATE' });
});

test('refuses a directory that others may write to, and says what to do', async () => {
  const { directory } = await freshClaims();
  await chmod(directory, 0o777);
  await assert.rejects(openClaims(directory), { code: 'ERR_SESSION_STATE', message: /chmod 700/ });
});
