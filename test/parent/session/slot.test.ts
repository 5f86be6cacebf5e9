import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { Claims } from '../../../parent/session/claims.ts';
import { hashKey } from '../../../parent/session/claims.ts';
import { SessionSlot } from '../../../parent/session/slot.ts';
import { isPosternError, PosternError } from '../../../shared/errors.ts';
import { fuzzRounds, fuzzSeed, SeededRandom } from '../../fuzz/fuzz.ts';

const [ANNE, BOB] = [randomBytes(32), randomBytes(32)];
const IDENTITY = 'cid:16';

/** A disk in memory that breaks on demand. */
class MemoryClaims implements Claims {
  stored: Buffer | undefined;
  broken = false;
  /** As after a crash between the write and its acknowledgement. */
  writesDespiteError = false;

  async recall(): Promise<Buffer | undefined> {
    await this.#work();
    return this.stored;
  }

  async remember(_identity: string, keyHash: Buffer): Promise<void> {
    if (this.broken && this.writesDespiteError) this.stored = keyHash;
    await this.#work();
    this.stored = keyHash;
  }

  async forget(): Promise<void> {
    await this.#work();
    this.stored = undefined;
  }

  async #work(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.broken) throw new PosternError('ERR_SESSION_STATE', 'the disk is broken');
  }
}

type Step = 'anne' | 'bob' | 'vacate' | 'release' | 'break' | 'mend' | 'restart';

/** One row: what happens, in order, and what the last step comes to. */
const TABLE: readonly { steps: Step[]; outcome: string }[] = [
  { steps: ['anne'], outcome: 'live' },
  { steps: ['anne', 'anne'], outcome: 'ERR_SESSION_TAKEN' },
  { steps: ['anne', 'bob'], outcome: 'ERR_SESSION_TAKEN' },
  { steps: ['anne', 'vacate', 'anne'], outcome: 'live' },
  { steps: ['anne', 'vacate', 'bob'], outcome: 'ERR_SESSION_TAKEN' },
  { steps: ['anne', 'restart', 'bob'], outcome: 'ERR_SESSION_TAKEN' },
  { steps: ['anne', 'restart', 'anne'], outcome: 'live' },
  { steps: ['anne', 'vacate', 'release', 'bob'], outcome: 'live' },
  { steps: ['anne', 'release', 'bob'], outcome: 'live' },
  { steps: ['anne', 'release', 'restart', 'bob'], outcome: 'live' },
  { steps: ['break', 'anne'], outcome: 'ERR_SESSION_STATE' },
  { steps: ['break', 'anne', 'bob'], outcome: 'ERR_SESSION_STATE' },
  { steps: ['break', 'anne', 'mend', 'bob'], outcome: 'live' },
  { steps: ['anne', 'break', 'restart', 'anne'], outcome: 'ERR_SESSION_STATE' },
  { steps: ['anne', 'break', 'restart', 'mend', 'bob'], outcome: 'ERR_SESSION_TAKEN' },
  { steps: ['anne', 'break', 'restart', 'mend', 'anne'], outcome: 'live' },
  { steps: ['anne', 'break', 'vacate', 'anne'], outcome: 'live' },
  { steps: ['anne', 'break', 'release'], outcome: 'ERR_SESSION_STATE' },
  { steps: ['anne', 'break', 'release', 'mend', 'bob'], outcome: 'ERR_SESSION_TAKEN' },
];

class Walk {
  readonly claims = new MemoryClaims();
  slot = SessionSlot.open(IDENTITY, this.claims);

  async step(step: Step): Promise<string> {
    const slot = await this.slot;
    try {
      if (step === 'anne' || step === 'bob') await slot.claim(step === 'anne' ? ANNE : BOB);
      else if (step === 'vacate') slot.vacate();
      else if (step === 'release') await slot.release(() => slot.vacate());
      else if (step === 'restart') await this.#restart();
      else this.claims.broken = step === 'break';
    } catch (error) {
      if (!isPosternError(error)) throw error;
      return error.code;
    }
    return (await this.slot).state.kind;
  }

  async #restart(): Promise<void> {
    this.slot = SessionSlot.open(IDENTITY, this.claims);
    await this.slot;
  }
}

for (const { steps, outcome } of TABLE) {
  test(`${steps.join(', ')}: ${outcome}`, async () => {
    const walk = new Walk();
    let last = '';
    for (const step of steps) last = await walk.step(step);
    assert.equal(last, outcome);
  });
}

test('a write that failed after it was done binds its key', async () => {
  const walk = new Walk();
  walk.claims.writesDespiteError = true;
  await walk.step('break');
  assert.equal(await walk.step('anne'), 'ERR_SESSION_STATE');
  await walk.step('mend');
  assert.equal(await walk.step('bob'), 'ERR_SESSION_TAKEN');
  assert.equal(await walk.step('anne'), 'live');
});

test('of two first claims at once exactly one wins, and a release waits for it', async () => {
  const claims = new MemoryClaims();
  const slot = await SessionSlot.open(IDENTITY, claims);
  const outcomes = await Promise.allSettled([slot.claim(ANNE), slot.claim(BOB)]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected'],
  );
  slot.vacate();
  await slot.release(() => slot.vacate());
  const claim = slot.claim(BOB);
  let ended = 0;
  await slot.release(() => {
    ended += 1;
    slot.vacate();
  });
  await claim;
  assert.equal(ended, 1);
  assert.deepEqual(slot.state, { kind: 'vacant', keyHash: undefined });
  assert.equal(claims.stored, undefined);
});

/**
 * Whatever happens in whatever order: a key gets in only if it is the one remembered or none is, and never beside a
 * live session. Some steps overlap with the next.
 */
test('a random walk never lets a second key in', async (t) => {
  const seed = fuzzSeed();
  t.diagnostic(`seed ${seed}`);
  const random = new SeededRandom(seed);
  const rounds = fuzzRounds(2_000);
  const steps: readonly Step[] = ['anne', 'bob', 'vacate', 'release', 'break', 'mend', 'mend', 'restart'];
  const walk = new Walk();
  for (let round = 0; round < rounds; round += 1) {
    const step = random.pick(steps);
    const slot = await walk.slot;
    const remembered = walk.claims.stored;
    const liveBefore = slot.state.kind === 'live';
    const outcome = await walk.step(step);
    if (step !== 'anne' && step !== 'bob') continue;
    const key = hashKey(step === 'anne' ? ANNE : BOB);
    if (outcome === 'live') {
      assert.equal(liveBefore, false, `round ${round}: a second live session`);
      assert.ok(remembered === undefined || remembered.equals(key), `round ${round}: another key got in`);
      assert.ok(walk.claims.stored?.equals(key), `round ${round}: live but not remembered`);
    } else if (outcome === 'ERR_SESSION_TAKEN') {
      assert.ok(liveBefore || remembered !== undefined, `round ${round}: refused for nobody`);
    }
  }
});
