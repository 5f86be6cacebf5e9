import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FlushMode } from '../../guest/volume/header.ts';
import { Simulation, type SimulationResult } from './simulated/simulation.ts';

/**
 * SEED=n runs that seed alone (and ROUNDS=n, so many rounds), which replays a failure exactly. SLOW=1 runs thousands.
 */
const SEED = process.env['SEED'];
const IS_SLOW = process.env['SLOW'] === '1';
const ROUNDS = Number(process.env['ROUNDS'] ?? 20);

function seeds(first: number, few: number, many: number): number[] {
  if (SEED !== undefined) return [Number(SEED)];
  return Array.from({ length: IS_SLOW ? many : few }, (_, index) => first + index);
}

async function live(mode: FlushMode, numbers: readonly number[]): Promise<SimulationResult> {
  const total: Record<string, number> = {};
  for (const seed of numbers) {
    const result = await new Simulation({ seed, rounds: ROUNDS, mode }).run();
    for (const [name, value] of Object.entries(result)) total[name] = (total[name] ?? 0) + value;
  }
  return total as unknown as SimulationResult;
}

function report(
  t: { diagnostic(message: string): void },
  numbers: readonly number[],
  result: SimulationResult,
): void {
  t.diagnostic(`seeds ${numbers[0]} to ${numbers.at(-1)}, ${ROUNDS} rounds each: ${JSON.stringify(result)}`);
}

test('strict: no acknowledged flush is lost, nothing appears that was not written, every attach works', async (t) => {
  const numbers = seeds(1, 10, 200);
  const result = await live({ kind: 'strict' }, numbers);
  report(t, numbers, result);
  if (SEED !== undefined) return;
  // The walk is worth something only where it meets all of this.
  for (const name of [
    'crashes',
    'detaches',
    'takeovers',
    'checkpoints',
    'deletedObjects',
    'repackedSegments',
  ] as const) {
    assert.ok(result[name] > 0, `no ${name}`);
  }
});

test('lazy: with an honest host, what was acknowledged is found again', async (t) => {
  const numbers = seeds(5001, 3, 40);
  report(t, numbers, await live({ kind: 'lazy', maxMs: 2000, maxCommits: 5 }, numbers));
});

test('a process may end at every single step of its attach and its work', async (t) => {
  const seed = Number(SEED ?? 77);
  const calm = { seed, rounds: 1, faults: {}, anchorFaults: 0 };
  const { moments } = await new Simulation({ ...calm, endsAt: Number.POSITIVE_INFINITY }).run();
  assert.ok(moments > 50);
  for (let endsAt = 1; endsAt <= moments; endsAt += 1) {
    await new Simulation({ ...calm, rounds: 2, endsAt }).run();
  }
  t.diagnostic(`seed ${seed}: ended at each of ${moments} moments`);
});
