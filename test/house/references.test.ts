import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { REPOSITORY } from './sources.ts';

const TOP = ['shared', 'parent', 'guest'] as const;
type Top = (typeof TOP)[number];

const scratch = mkdtempSync(join(tmpdir(), 'postern-references-'));
after(() => rmSync(scratch, { recursive: true }));

/** Compiles a project with this repository's configuration, and one file in each folder; `from` imports `to`. */
function compile(from: Top, to: Top): { status: number | null; output: string } {
  const root = mkdtempSync(join(scratch, 'project-'));
  cpSync(join(REPOSITORY, 'tsconfig.json'), join(root, 'tsconfig.json'));
  writeFileSync(join(root, 'package.json'), '{ "type": "module" }');
  symlinkSync(join(REPOSITORY, 'node_modules'), join(root, 'node_modules'));
  for (const folder of TOP) {
    mkdirSync(join(root, folder));
    cpSync(join(REPOSITORY, folder, 'tsconfig.json'), join(root, folder, 'tsconfig.json'));
    writeFileSync(join(root, folder, 'own.ts'), `export const ${folder}Own = 1;\n`);
  }
  const text = `import { ${to}Own } from '../${to}/own.ts';\nexport const borrowed: number = ${to}Own;\n`;
  writeFileSync(join(root, from, 'borrower.ts'), text);
  const { status, stdout } = spawnSync(join(REPOSITORY, 'node_modules/.bin/tsc'), ['-b', from], {
    cwd: root,
    encoding: 'utf8',
  });
  return { status, output: stdout };
}

for (const side of ['parent', 'guest'] as const) {
  test(`${side} may import shared`, () => {
    const { status, output } = compile(side, 'shared');
    assert.equal(status, 0, output);
  });
}

for (const [from, to] of [
  ['parent', 'guest'],
  ['guest', 'parent'],
  ['shared', 'parent'],
  ['shared', 'guest'],
] as const) {
  test(`${from} importing ${to} is a compile error`, () => {
    const { status, output } = compile(from, to);
    assert.notEqual(status, 0);
    // TS6059: not under rootDir. TS6307: not listed by the project.
    assert.match(output, /borrower\.ts.*TS(6059|6307)|TS(6059|6307)/);
  });
}
