import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ERRORS } from '../../shared/errors.ts';
import { REPOSITORY, readSources } from './sources.ts';

const ROW = /^\| `(ERR_[A-Z_]+)` +\| (.+?) +\| (.+?) +\|$/gm;

const page = readFileSync(join(REPOSITORY, 'docs/errors.md'), 'utf8');
const rows = [...page.matchAll(ROW)].map(([, code = '', meaning = '', advice = '']) => ({
  code,
  meaning,
  advice,
}));

test('docs/errors.md lists exactly the codes of ERRORS, in their order', () => {
  assert.deepEqual(
    rows.map(({ code }) => code),
    Object.keys(ERRORS),
  );
});

test('docs/errors.md gives the meanings of ERRORS, and says what to do', () => {
  assert.deepEqual(Object.fromEntries(rows.map(({ code, meaning }) => [code, meaning])), { ...ERRORS });
  for (const { code, advice } of rows) assert.match(advice, /\.$/, code);
});

test('no code is mentioned that does not exist', () => {
  const known = new Set(Object.keys(ERRORS));
  const areas = [...new Set(Object.keys(ERRORS).map((code) => code.split('_')[1]))].join('|');
  const ours = new RegExp(`'(ERR_(?:${areas})_[A-Z_]+)'`, 'g');
  for (const { path, text } of readSources('shared', 'parent', 'guest', 'test')) {
    for (const [, code = ''] of text.matchAll(ours)) assert.ok(known.has(code), `${path}: ${code}`);
  }
});
