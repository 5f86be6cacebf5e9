import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));

let folder = '';
let config = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'postern-volume-'));
  await mkdir(join(folder, 'objects'));
  await writeFile(join(folder, 'key'), 'ab'.repeat(32), { mode: 0o600 });
  config = join(folder, 'volumes.yaml');
  await writeFile(
    config,
    `version: 1
volumes:
  - name: data
    store: {kind: directory, path: ${folder}/objects}
    key: {kind: file, path: ${folder}/key}
    anchor: {kind: file, path: ${folder}/anchor}
  - name: other
    store: {kind: directory, path: ${folder}/objects}
    key: {kind: env, variable: OTHER_KEY}
    anchor: {kind: none}
`,
  );
});
after(() => rm(folder, { recursive: true, force: true }));

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function volume(...words: string[]): Promise<Ran> {
  const env = { ...process.env, OTHER_KEY: 'cd'.repeat(32) };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [POSTERN, 'volume', ...words, '--config', config],
      { env },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr });
      },
    );
  });
}

async function json(...words: string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await volume(...words, '--json');
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Record<string, unknown>;
}

test('a volume’s life on the command line', async () => {
  const missing = await volume('status', 'data');
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /ERR_VOLUME_NOT_FOUND[\s\S]*volume create data/);

  const created = await json('create', 'data', '--size', '1G');
  assert.equal(created['sizeBytes'], 2 ** 30);
  const again = await volume('create', 'data', '--size', '1G');
  assert.match(again.stderr, /ERR_VOLUME_EXISTS/);

  assert.equal((await volume('snapshot', 'data', 'empty')).code, 0);
  assert.equal((await volume('resize', 'data', '2G')).code, 0);
  const status = await json('status', 'data');
  assert.equal(status['sizeBytes'], 2 ** 31);
  assert.equal(status['attached'], false);
  assert.deepEqual(
    (status['snapshots'] as { name: string }[]).map(({ name }) => name),
    ['empty'],
  );

  const dry = await json('restore', 'data', 'empty', '--dry-run');
  assert.equal(dry['dryRun'], true);
  assert.equal((await volume('restore', 'data', 'empty')).code, 0);
  assert.equal((await json('status', 'data'))['sizeBytes'], 2 ** 30);
  assert.equal((await volume('restore', 'data', 'none')).code, 1);

  const wouldRekey = await json('rekey', 'data', '--dry-run');
  assert.deepEqual([wouldRekey['generation'], wouldRekey['keptFor']], [2, ['empty']]);
  assert.deepEqual(await json('rekey', 'data'), { generation: 2, isDrained: false });
  assert.equal((await volume('snapshot', 'data', 'more', '--dry-run')).code, 2);
  const wouldDrop = await json('snapshot', 'data', 'empty', '--delete', '--dry-run');
  assert.deepEqual([wouldDrop['dryRun'], wouldDrop['name']], [true, 'empty']);
  assert.equal((await volume('snapshot', 'data', 'empty', '--delete')).code, 0);
  assert.deepEqual(await json('rekey', 'data'), { generation: 3, isDrained: true });
  await json('gc', 'data');
  const report = await json('check', 'data');
  assert.deepEqual([report['problemCount'], report['orphans']], [0, 0]);
});

test('check says what is damaged, and fails', async () => {
  assert.equal((await volume('snapshot', 'data', 'kept')).code, 0);
  const objects = await readdir(join(folder, 'objects'), { recursive: true, withFileTypes: true });
  const segments = objects.filter((entry) => entry.isFile() && entry.parentPath.includes('/s/'));
  const [first] = segments;
  assert.ok(first);
  const path = join(first.parentPath, first.name);
  const bytes = await readFile(path);
  await writeFile(path, bytes.with(5, (bytes[5] ?? 0) ^ 1));
  const damaged = await volume('check', 'data', '--json');
  await writeFile(path, bytes);
  assert.equal(damaged.code, 1);
  assert.ok((JSON.parse(damaged.stdout) as { problemCount: number }).problemCount > 0);
});

test('with --json there is one document on standard output, and progress as lines of JSON on standard error', async () => {
  for (const words of [['check'], ['gc'], ['rekey'], ['gc', '--dry-run'], ['delete', '--dry-run']]) {
    const [action = '', ...rest] = words;
    const { code, stdout, stderr } = await volume(action, 'data', ...rest, '--json');
    assert.equal(code, 0, stderr);
    assert.equal(typeof JSON.parse(stdout), 'object');
    const lines = stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { progress?: { step?: string } });
    assert.ok(
      lines.some(({ progress }) => typeof progress?.step === 'string'),
      `${words.join(' ')}: ${stderr}`,
    );
  }
});

test('every command teaches', async () => {
  const { stdout } = await volume('--help');
  const names = [...stdout.matchAll(/^ {2}([a-z]+) \[options\]/gm)].map(([, name = '']) => name);
  assert.deepEqual(names, [
    'create',
    'list',
    'status',
    'snapshot',
    'restore',
    'resize',
    'check',
    'gc',
    'rekey',
    'delete',
  ]);
  for (const name of names) {
    const help = await volume(name, '--help');
    assert.equal(help.code, 0);
    assert.match(help.stdout, new RegExp(`Examples:\\n {2}postern volume ${name} .*--config`));
    const typo = await volume(name, '--nonsense');
    assert.equal(typo.code, 2, typo.stderr);
  }
});

async function objectsOf(prefix: string): Promise<string[]> {
  const entries = await readdir(join(folder, 'objects'), { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && entry.parentPath.includes(`/${prefix}`));
  return files.map(({ name }) => name);
}

test('deleting is meant twice, and leaves nothing', async () => {
  const refused = await volume('delete', 'data');
  assert.equal(refused.code, 2);
  const counted = await json('delete', 'data', '--dry-run');
  assert.ok(Number(counted['objects']) > 3);
  const deleted = await json('delete', 'data', '--yes');
  // Its own claim and commit, by which it takes the volume first, come on top.
  assert.ok(Number(deleted['objects']) > Number(counted['objects']));
  assert.deepEqual(await objectsOf('data'), []);
  assert.match((await volume('status', 'data')).stderr, /ERR_VOLUME_NOT_FOUND/);
});

test('the list names every volume of the configuration; another key provider and mode are as configured', async () => {
  assert.match((await volume('create', 'other', '--size', '1M')).stderr, /needs an anchor/);
  const created = await volume('create', 'other', '--size', '1M', '--mode', 'none');
  assert.equal(created.code, 0, created.stderr);
  const { stdout } = await volume('list');
  assert.match(stdout, /data\tdoes not exist/);
  assert.match(stdout, /other\tdetached, 1048576 bytes/);
});

test('bad input starts nothing', async () => {
  for (const words of [
    ['create', 'data', '--size', 'big'],
    ['create', 'data', '--size', '1G', '--mode', 'lazy'],
    ['status', 'nobody'],
  ]) {
    assert.equal((await volume(...words)).code, 2, words.join(' '));
  }
  const { publicKey } = generateKeyPairSync('ed25519');
  const key = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32).toString('hex');
  assert.equal((await volume('create', 'data', '--size', '1G', '--owner-key', key)).code, 0);
});
