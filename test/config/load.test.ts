import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import * as v from 'valibot';
import { CONFIG_MAX_BYTES, CONFIG_MAX_PROBLEMS, parseConfig, readConfig } from '../../shared/config/load.ts';
import { didYouMean, joinPath } from '../../shared/config/path.ts';
import { isPosternError, type Problem } from '../../shared/errors.ts';

const SCHEMA = v.strictObject({
  listen: v.string(),
  workers: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(64))),
  verbose: v.optional(v.boolean()),
  level: v.optional(v.picklist(['debug', 'info'])),
  size: v.optional(v.pipe(v.number(), v.description('a size in bytes'))),
  guests: v.optional(
    v.record(v.string(), v.strictObject({ cid: v.number(), ports: v.optional(v.array(v.number())) })),
  ),
  store: v.optional(
    v.union([
      v.strictObject({ kind: v.literal('directory'), path: v.string() }),
      v.strictObject({ kind: v.literal('s3'), bucket: v.string(), region: v.string() }),
    ]),
  ),
});

function problemsOf(text: string): readonly Problem[] {
  try {
    parseConfig(text, 'c.yaml', SCHEMA);
  } catch (error) {
    assert.ok(isPosternError(error, 'ERR_CONFIG_INVALID'), String(error));
    return error.problems;
  }
  return assert.fail(`accepted: ${text}`);
}

const brief = (text: string): string[] =>
  problemsOf(text).map(({ path, line, expected, found }) => `${line ?? '-'} ${path}: ${expected} / ${found}`);

test('every mistake, in the order of the file, with path and line', () => {
  const text = `listen: 7
workers: 0
verbose: "yes"
level: trace
guests:
  web.prod:
    cid: "16"
    ports:
      - 1
      - x
  3:
    cidd: 5
extra: 1
another: 2`;
  assert.deepEqual(brief(text), [
    '1 listen: a text / 7',
    '2 workers: >=1 / 0',
    '3 verbose: true or false / "yes"',
    '4 level: "debug" or "info" / "trace"',
    '7 guests["web.prod"].cid: a number, without quotes / "16"',
    '10 guests["web.prod"].ports[1]: a number / "x"',
    '11 guests.3.cid: a number / nothing',
    '12 guests.3.cidd: one of the keys cid, ports; did you mean cid? / an unknown key',
    '13 extra: one of the keys listen, workers, verbose, level, size, guests, store / an unknown key',
    '14 another: one of the keys listen, workers, verbose, level, size, guests, store / an unknown key',
  ]);
});

test('a schema’s own description is what was expected', () => {
  assert.deepEqual(brief('listen: x\nsize: big'), ['2 size: a size in bytes / "big"']);
  assert.deepEqual(brief('listen: x\nworkers: 1.5'), ['2 workers: a whole number / 1.5']);
});

test('of a union the alternative that was meant', () => {
  assert.deepEqual(brief('listen: x\nstore: { kind: s3, bucket: b, regoin: r }'), [
    '2 store.regoin: one of the keys kind, bucket, region; did you mean region? / an unknown key',
    '2 store.region: a text / nothing',
  ]);
  assert.deepEqual(brief('listen: x\nstore: 7'), ['2 store: a mapping / 7']);
});

test('inherited keys are unknown keys', () => {
  for (const key of ['constructor', 'toString', '__proto__', 'hasOwnProperty']) {
    assert.deepEqual(
      problemsOf(`listen: x\n${key}: 1`).map(({ path }) => path),
      [key],
    );
  }
});

test('a list is no mapping, nothing is no mapping', () => {
  assert.ok(brief('[]').includes('1 : a mapping / an empty list'));
  assert.deepEqual(brief('listen: x\nguests: []'), ['2 guests: a mapping / an empty list']);
  assert.deepEqual(
    problemsOf('').map(({ found }) => found),
    ['an empty value'],
  );
});

test('repeated keys name both lines', () => {
  assert.deepEqual(brief('listen: x\nguests:\n  a: { cid: 1 }\n  a: { cid: 2 }'), [
    '4 guests.a: one of it; the other is on line 3 / the key twice',
  ]);
  assert.deepEqual(brief('{"listen": "x", "listen": "y"}'), [
    '1 listen: one of it; the other is on line 1 / the key twice',
  ]);
});

test('text that is no YAML, aliases that explode, tags, nesting without end', () => {
  assert.ok(brief('listen: [').length > 0);
  assert.ok(brief('listen: x\n---\nlisten: y').length > 0);
  assert.ok(brief('listen: !!js/function "x"').length > 0);
  assert.match(brief('? [listen]\n: x')[0] ?? '', /plain key/);
  assert.match(brief('listen: *nobody')[0] ?? '', /quotes around.*"\*nobody"/);
  const bomb = [
    'a: &a [x,x]',
    ...Array.from(
      'bcdefghij',
      (name, index) => `${name}: &${name} [${`*${'abcdefghij'[index]},`.repeat(9)}]`,
    ),
  ];
  assert.match(brief(bomb.join('\n'))[0] ?? '', /nesting|aliases|one of the keys/);
  assert.match(brief(`listen: ${'*x,'.repeat(101)}`)[0] ?? '', /aliases|YAML/);
  assert.match(brief('['.repeat(200_000))[0] ?? '', /less nesting|well-formed/);
  assert.match(brief('- '.repeat(100_000))[0] ?? '', /less nesting|well-formed/);
});

test('many keys take no quadratic time', () => {
  const text = Array.from({ length: 30_000 }, (_, index) => `  key${index}: { cid: 1 }`).join('\n');
  parseConfig(`listen: x\nguests:\n${text}`, 'c.yaml', SCHEMA);
});

test('a report ends somewhere', () => {
  const text = Array.from({ length: CONFIG_MAX_PROBLEMS + 23 }, (_, index) => `key${index}: 1`).join('\n');
  const caught = (() => {
    try {
      parseConfig(`listen: x\n${text}`, 'c.yaml', SCHEMA);
    } catch (error) {
      return error;
    }
    return undefined;
  })();
  assert.ok(isPosternError(caught));
  assert.equal(caught.problems.length, CONFIG_MAX_PROBLEMS);
  assert.match(caught.message, /and 23 more problems/);
});

test('long values are shortened in messages', () => {
  const [problem] = problemsOf(`listen: x\nworkers: ${'y'.repeat(500)}`);
  assert.ok((problem?.found.length ?? 0) < 100);
});

test('cross checks see only what parsed; what salvages sees the rest', () => {
  const cross = () => [{ path: 'listen', found: 'x', expected: 'y' }];
  const salvage = () => [{ path: 'workers', found: 'salvaged', expected: 'z' }];
  const paths = (text: string): string[] => {
    try {
      parseConfig(text, 'c', SCHEMA, cross, salvage);
    } catch (error) {
      if (isPosternError(error)) return error.problems.map(({ path, found }) => `${path} ${found}`);
      throw error;
    }
    return [];
  };
  assert.deepEqual(paths('listen: x'), ['listen x']);
  assert.deepEqual(paths('listen: x\nworkers: 0'), ['workers 0', 'workers salvaged']);
});

test('the result is frozen through and through', () => {
  const config = parseConfig('listen: x\nguests: { a: { cid: 1, ports: [1] } }', 'c', SCHEMA);
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.guests?.['a']?.ports));
});

const folder = mkdtempSync(join(tmpdir(), 'postern-config-'));
after(() => rmSync(folder, { recursive: true }));

test('files: missing, a folder, too large, not UTF-8, with a byte order mark', async () => {
  const write = (name: string, bytes: Buffer): string => {
    writeFileSync(join(folder, name), bytes);
    return join(folder, name);
  };
  const unreadable = [
    join(folder, 'missing'),
    folder,
    write('large', Buffer.alloc(CONFIG_MAX_BYTES + 1, 32)),
    write('binary', Buffer.from([0x6c, 0xff, 0xfe])),
    '/dev/zero',
  ];
  for (const file of unreadable) {
    await assert.rejects(readConfig(file, SCHEMA), (error) => isPosternError(error, 'ERR_CONFIG_UNREADABLE'));
  }
  const marked = write('bom', Buffer.from('\ufefflisten: x'));
  assert.equal((await readConfig(marked, SCHEMA)).listen, 'x');
});

test('paths and guesses', () => {
  assert.equal(['guests', 'a b', 0, 'cid'].reduce(joinPath, ''), 'guests["a b"][0].cid');
  assert.equal(didYouMean('port', ['ports', 'protocol']), 'ports');
  assert.equal(didYouMean('PORTS', ['ports', 'protocol']), 'ports');
  assert.equal(didYouMean('prots', ['ports', 'protocol']), 'ports');
  assert.equal(didYouMean('zebra', ['ports', 'protocol']), undefined);
});
