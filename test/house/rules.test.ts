import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { findCycles, REPOSITORY, readSources, type Source } from './sources.ts';

/** Files aim for 150 lines; past this a file is listed below, and the list only shrinks. */
const MAX_LINES = 300;
const LONG_FILES: Readonly<Record<string, number>> = {};

/** Names that say nothing about what is inside. */
const EMPTY_NAMES = /(^|\/)(utils?|helpers?|commons?|managers?|misc|lib)(\.ts|\/)/;

/** Where the environment is read: it is no configuration, it is what a program is started with or passes on. */
const ENVIRONMENT_READERS: readonly string[] = [
  'guest/command.ts',
  'guest/volume/command.ts',
  'shared/demo/workload.ts',
];

/** Where C is called. Each is one module that an auditor can read whole. */
const FOREIGN_CALLERS: readonly string[] = [
  'shared/transport/native/libc.ts',
  'shared/transport/native/ready.ts',
  'guest/workload/native.ts',
  'guest/nbd/netlink-socket.ts',
];

/** Cycles of types alone, to be dissolved: no new one joins them. */
const TYPE_CYCLES: readonly string[] = [
  'parent/config/config.ts -> parent/config/conflicts.ts -> parent/config/config.ts',
];

const product = readSources('shared', 'parent', 'guest');
const everything = [...product, ...readSources('test')];

function paths(sources: readonly Source[], wrong: (source: Source) => boolean): string[] {
  return sources.filter(wrong).map(({ path }) => path);
}

test('there are sources to look at, and their imports are found', () => {
  assert.ok(product.length > 50);
  const connect = product.find(({ path }) => path === 'shared/transport/connect.ts');
  assert.ok(connect?.imports.some(({ path }) => path === 'shared/transport/hybrid.ts'));
});

test('files stay short', () => {
  const long = product.filter(({ path, lineCount }) => lineCount > (LONG_FILES[path] ?? MAX_LINES));
  assert.deepEqual(
    long.map(({ path, lineCount }) => `${path}: ${lineCount} lines`),
    [],
  );
});

test('a file that became short leaves the list of long ones', () => {
  const short = product.filter(({ path, lineCount }) => path in LONG_FILES && lineCount <= MAX_LINES);
  assert.deepEqual(
    short.map(({ path }) => path),
    [],
  );
});

test('no folder or file has an empty name', () => {
  assert.deepEqual(
    paths(everything, ({ path }) => EMPTY_NAMES.test(path)),
    [],
  );
});

test('shared imports neither side, the sides not each other, and nothing imports tests', () => {
  const wrong = product.flatMap(({ path, imports }) => {
    const folder = path.split('/')[0] ?? '';
    const targets = imports.flatMap((target) => (target.path === undefined ? [] : [target.path]));
    return targets.filter((target) => !target.startsWith('shared/') && !target.startsWith(`${folder}/`));
  });
  assert.deepEqual(wrong, []);
});

test('there are no import cycles', () => {
  assert.deepEqual(
    findCycles(everything).filter((cycle) => !TYPE_CYCLES.includes(cycle)),
    [],
  );
});

test('a cycle would be found', () => {
  const source = (path: string, target: string): Source => ({
    path,
    text: '',
    lineCount: 0,
    imports: [{ specifier: `./${target}`, path: target }],
  });
  assert.deepEqual(findCycles([source('a.ts', 'b.ts'), source('b.ts', 'c.ts'), source('c.ts', 'b.ts')]), [
    'b.ts -> c.ts -> b.ts',
  ]);
});

test('no file only hands on what another exports', () => {
  assert.deepEqual(
    paths(everything, ({ text }) => /^export (type )?(\*|\{[^}]*\}) from /m.test(text)),
    [],
  );
});

test('exports have names', () => {
  assert.deepEqual(
    paths(everything, ({ text }) => /^export default\b/m.test(text)),
    [],
  );
});

test('nothing is of type any', () => {
  assert.deepEqual(
    paths(product, ({ text }) => /[:<]\s*any\b|\bas any\b/.test(withoutComments(text))),
    [],
  );
});

test('the environment is read where it is allowed', () => {
  const readers = paths(product, ({ text }) => /\bprocess\.env\b|\{ env \}.*node:process/.test(text));
  assert.deepEqual(
    readers.filter((path) => !ENVIRONMENT_READERS.includes(path)),
    [],
  );
});

test('C is called where it is allowed', () => {
  const callers = paths(everything, ({ imports }) => imports.some(({ specifier }) => specifier === 'koffi'));
  assert.deepEqual(
    callers.filter((path) => !FOREIGN_CALLERS.includes(path)),
    [],
  );
});

test('packages of the product are its dependencies', () => {
  const { dependencies } = JSON.parse(readFileSync(join(REPOSITORY, 'package.json'), 'utf8'));
  const foreign = product.flatMap(({ imports }) =>
    imports.filter(({ specifier }) => !specifier.startsWith('.') && !specifier.startsWith('node:')),
  );
  const names = foreign.map(({ specifier }) =>
    specifier
      .split('/')
      .slice(0, specifier.startsWith('@') ? 2 : 1)
      .join('/'),
  );
  assert.deepEqual(
    [...new Set(names)].filter((name) => !(name in dependencies)),
    [],
  );
});

test('the compiler and the linter hold the rules that are theirs', () => {
  const { compilerOptions } = JSON.parse(readFileSync(join(REPOSITORY, 'tsconfig.json'), 'utf8'));
  for (const option of [
    'strict',
    'erasableSyntaxOnly',
    'verbatimModuleSyntax',
    'exactOptionalPropertyTypes',
    'noUncheckedIndexedAccess',
    'noImplicitOverride',
    'noFallthroughCasesInSwitch',
  ]) {
    assert.equal(compilerOptions[option], true, option);
  }
  const { style, suspicious, performance } = JSON.parse(readFileSync(join(REPOSITORY, 'biome.json'), 'utf8'))
    .linter.rules;
  for (const rule of [
    'noEnum',
    'noParameterProperties',
    'noDefaultExport',
    'noNonNullAssertion',
    'useImportType',
  ]) {
    assert.equal(style[rule], 'error', rule);
  }
  assert.equal(suspicious.noConsole, 'error');
  assert.equal(performance.noBarrelFile, 'error');
});

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '').replace(/'[^'\n]*'|`[^`]*`/g, "''");
}
