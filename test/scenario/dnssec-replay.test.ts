import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const repository = join(import.meta.dirname, '../..');
const harness = join(repository, '../shared/dnssec/replay.py');
/** What the harness allows one case; a slow machine starts Node in less than a second. */
const CASE_TIMEOUT_SECONDS = 30;

interface CaseResult {
  readonly id: string;
  readonly expect: string;
  readonly got: { readonly status: string };
  readonly diffs: readonly string[];
}

const skip = existsSync(harness) ? false : `${harness} is not beside the repository`;

test('the replayed scenarios: all of core, nothing bogus accepted, each difference explained', {
  skip,
}, async () => {
  const results = await replayAll();
  const accepted = results.filter(
    ({ expect, got }) => expect === 'bogus' && (got.status === 'secure' || got.status === 'insecure'),
  );
  assert.deepEqual(accepted, [], 'accepted although bogus');
  const cases = JSON.parse(readFileSync(join(harness, '../cases.json'), 'utf8')) as {
    id: string;
    tier: string;
  }[];
  const tiers = new Map(cases.map(({ id, tier }) => [id, tier]));
  const different = results.filter(({ diffs }) => diffs.length > 0);
  const core = different.filter(({ id }) => tiers.get(id) === 'core');
  assert.deepEqual(core, [], 'core cases that disagree');
  const page = readFileSync(join(repository, 'docs/dnssec-scenarios.md'), 'utf8');
  const explained = [...page.matchAll(/^- `([^`]+)` \(/gm)].map(([, id]) => id);
  assert.deepEqual(different.map(({ id }) => id).sort(), explained.sort());
});

async function replayAll(): Promise<CaseResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-replay-'));
  try {
    const report = join(folder, 'report.json');
    const command = `${process.execPath} ${join(repository, 'shared/cli/postern.ts')} resolve --json`;
    const options = [
      '--cmd',
      command,
      '-j',
      '2',
      '--timeout',
      String(CASE_TIMEOUT_SECONDS),
      '--json',
      report,
    ];
    // Run by its own first line, which names Debian's python3. It exits with 1 where any case disagrees; the report says which.
    await promisify(execFile)(harness, ['run-all', ...options]).catch((error: { code?: unknown }) => {
      if (error.code !== 1) throw error;
    });
    return JSON.parse(readFileSync(report, 'utf8')) as CaseResult[];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
