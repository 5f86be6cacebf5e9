import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parsePolicy } from '../../shared/policy/policy.ts';
import { ALLOW_REASONS, DENY_REASONS, INGRESS_REASONS, SNI_REASONS } from '../../shared/policy/reasons.ts';
import { specialKindOf } from '../../shared/policy/special.ts';

const PAGE = readFileSync(new URL('../../docs/policy.md', import.meta.url), 'utf8');

function rowsOf(heading: string): string[][] {
  const section = PAGE.slice(PAGE.indexOf(`\n${heading}\n`) + heading.length + 2).split(/\n##/)[0] ?? '';
  return [...section.matchAll(/^\| `([^`]+)` *\| (.*) \|$/gm)].map((row) =>
    row.slice(1).map((cell) => cell.trim()),
  );
}

test('the page lists the reasons of the code, in its words', () => {
  const reasons = { ...DENY_REASONS, ...ALLOW_REASONS, ...INGRESS_REASONS, ...SNI_REASONS };
  assert.deepEqual(Object.fromEntries(rowsOf('## Reasons')), reasons);
});

test('the page’s special addresses are special in the code, of that kind', () => {
  const rows = rowsOf('### Special addresses').filter(([kind]) => kind !== 'own');
  assert.equal(rows.length, 10);
  for (const [kind, space = ''] of rows) {
    for (const [text] of space.matchAll(/\d+\.\d+\.\d+\.\d+|[\da-f]*:[\da-f:]+/g)) {
      // 2000::/3 stands there as what is not special.
      if (text !== '2000::' && !(kind === 'metadata')) assert.equal(specialKindOf(nextOf(text)), kind, text);
      if (kind === 'metadata') assert.equal(specialKindOf(text), kind, text);
    }
  }
});

/** An address inside the block, away from its first where that one is of another kind. */
function nextOf(text: string): string {
  if (text === '::1' || text === '::' || text === '255.255.255.255') return text;
  return text.includes(':') ? `${text}c000:201` : text.replace(/0$/, '7');
}

test('the page’s example is a policy', () => {
  const example = /```yaml\n([^`]*)```/.exec(PAGE)?.[1] ?? '';
  assert.equal(parsePolicy(example, 'docs/policy.md').egress.allow.length, 2);
});
