import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readSources } from './sources.ts';

const ROOT = new URL('../../', import.meta.url);
const README = readFileSync(new URL('README.md', ROOT), 'utf8');

test('every promise is numbered in order and names tests that exist, or says that it is pending', () => {
  const section = README.slice(README.indexOf('\n## Promises'), README.indexOf('\n## Measured'));
  const rows = [...section.matchAll(/^\| (\d+) +\| (.+?) +\| (.+?) +\|$/gm)];
  assert.ok(rows.length > 10);
  for (const [index, [, number, promise = '', heldBy = '']] of rows.entries()) {
    assert.equal(Number(number), index + 1);
    if (heldBy.trim() === '_pending_') continue;
    const files = [...heldBy.matchAll(/\]\((test\/[^)]+\.test\.ts)\)/g)].map(([, file = '']) => file);
    assert.ok(files.length > 0, promise);
    for (const file of files) assert.ok(existsSync(new URL(file, ROOT)), `${promise}: ${file}`);
  }
});

test('what the README points to is there', () => {
  const targets = [...README.matchAll(/\]\(([^)#:]+)\)/g)].map(([, target = '']) => target);
  for (const target of targets) assert.ok(existsSync(new URL(target, ROOT)), target);
  for (const [, script = ''] of README.matchAll(/npm run ([a-z:]+)/g)) {
    const { scripts } = JSON.parse(readFileSync(new URL('package.json', ROOT), 'utf8'));
    assert.ok(script in scripts, `npm run ${script}`);
  }
});

test('docs/limits.md names limits that the sources have', () => {
  const page = readFileSync(new URL('docs/limits.md', ROOT), 'utf8');
  const names = [...page.matchAll(/`([A-Z][A-Z0-9_]{5,})`/g)].map(([, name = '']) => name);
  const sources = readSources('shared', 'parent', 'guest')
    .map(({ text }) => text)
    .join('\n');
  for (const name of names) assert.match(sources, new RegExp(`const ${name}\\b`), name);
});
