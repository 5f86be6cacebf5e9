import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Account, PayloadBudget } from '../../../guest/nbd/budget.ts';
import { fuzzRounds, fuzzSeed, SeededRandom } from '../../fuzz/fuzz.ts';

describe('NBD payload budget', () => {
  /** A budget, and accounts that write their names down when they are granted something. */
  function start(inflightBytes: number, ownBytes: number) {
    const budget = new PayloadBudget({ inflightBytes, ownBytes });
    const granted: string[] = [];
    const open = (name: string) => budget.open(() => granted.push(name));
    return { budget, granted, open };
  }

  it('is shared, and lets in first who came first', () => {
    const { budget, granted, open } = start(40, 0);
    const [small, large, late] = [open('small'), open('large'), open('late')];
    assert.ok(budget.take(small, 30));
    assert.ok(!budget.take(large, 32));
    assert.ok(!budget.take(late, 1), 'one byte would fit, but it came later');
    budget.give(small, 21);
    assert.deepEqual(granted, []);
    budget.give(small, 1);
    assert.deepEqual(granted, ['large']);
    assert.equal(budget.heldBytes, 40);
    budget.give(small, 8);
    assert.deepEqual(granted, ['large', 'late']);
  });

  it('keeps its own bytes for each, in front of the queue and in it', () => {
    const { budget, granted, open } = start(40, 10);
    const [stalled, behind, other] = [open('stalled'), open('behind'), open('other')];
    assert.ok(budget.take(stalled, 50));
    assert.ok(!budget.take(behind, 11));
    assert.ok(budget.take(other, 4));
    assert.ok(budget.take(other, 6));
    assert.ok(!budget.take(other, 1));
    budget.give(other, 4);
    assert.deepEqual(granted, ['other'], 'fits into its own again, though another waits before it');
    assert.equal(budget.heldBytes, 57);
  });

  it('lets one in alone that is larger than everything, when no shared byte is held', () => {
    const { budget, granted, open } = start(40, 10);
    const [first, second] = [open('first'), open('second')];
    assert.ok(budget.take(first, 1000));
    assert.ok(!budget.take(second, 1000));
    budget.give(first, 1000);
    assert.deepEqual(granted, ['second']);
  });

  it('lets those in who waited behind one that leaves', () => {
    const { budget, granted, open } = start(40, 0);
    const [holder, large, small] = [open('holder'), open('large'), open('small')];
    budget.take(holder, 20);
    budget.take(large, 30);
    budget.take(small, 20);
    budget.leave(large);
    budget.leave(large);
    assert.deepEqual(granted, ['small']);
    budget.give(holder, 20);
    assert.deepEqual(granted, ['small']);
    assert.equal(budget.heldBytes, 20);
  });

  it('takes nothing back that is not held', () => {
    const { budget, open } = start(40, 10);
    const [one, other] = [open('one'), open('other')];
    budget.take(one, 5);
    budget.take(other, 5);
    budget.give(one, 5);
    assert.throws(() => budget.give(one, 1), /1 bytes given back of 0/);
  });

  it('may be asked again by whom it grants something', () => {
    const budget = new PayloadBudget({ inflightBytes: 40, ownBytes: 0 });
    const holder = budget.open(() => {});
    const order: string[] = [];
    const giving: Account = budget.open(() => {
      order.push('giving');
      budget.give(giving, 40);
      assert.ok(!budget.take(giving, 10), 'others wait');
    });
    const leaving = budget.open(() => order.push('leaving'));
    budget.take(holder, 40);
    for (const account of [giving, leaving]) budget.take(account, 40);
    budget.give(holder, 40);
    assert.deepEqual(order, ['giving', 'leaving']);
    budget.leave(giving);
    assert.equal(budget.heldBytes, 40);
  });

  it('holds to all of it in a random walk', (t) => {
    const seed = fuzzSeed();
    t.diagnostic(`SEED=${seed}`);
    const random = new SeededRandom(seed);
    for (let round = 0; round < fuzzRounds(200); round += 1) {
      walk(random, `seed ${seed} round ${round}`);
    }
  });
});

interface Walker {
  readonly account: Account;
  /** What it holds, by request. */
  readonly held: number[];
  wanted: number;
}

const OWN_BYTES = 10;
const SHARED_BYTES = 40;
const LARGEST_BYTES = 40;

function walk(random: SeededRandom, place: string): void {
  const budget = new PayloadBudget({ inflightBytes: SHARED_BYTES, ownBytes: OWN_BYTES });
  const walkers: Walker[] = [];
  /** Who waits, in the order in which they came. */
  const queue: Walker[] = [];
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const sharedOf = (walker: Walker, more = 0) => Math.max(0, sum(walker.held) + more - OWN_BYTES);
  const granted = (walker: Walker) => {
    const ahead = queue.indexOf(walker);
    assert.ok(ahead >= 0, `${place}: granted without waiting`);
    assert.ok(
      ahead === 0 || sharedOf(walker, walker.wanted) === sharedOf(walker),
      `${place}: past the queue`,
    );
    queue.splice(ahead, 1);
    walker.held.push(walker.wanted);
  };
  for (let count = 1 + random.below(6); count > 0; count -= 1) {
    const walker: Walker = { account: budget.open(() => granted(walker)), held: [], wanted: 0 };
    walkers.push(walker);
  }
  const check = () => {
    assert.equal(budget.heldBytes, sum(walkers.map(({ held }) => sum(held))), place);
    assert.ok(budget.heldBytes <= SHARED_BYTES + walkers.length * OWN_BYTES, `${place}: too much`);
    const shared = sum(walkers.map((walker) => sharedOf(walker)));
    for (const [index, walker] of queue.entries()) {
      const more = sharedOf(walker, walker.wanted) - sharedOf(walker);
      assert.ok(more > 0 && (index > 0 || shared + more > SHARED_BYTES), `${place}: waits for nothing`);
    }
  };
  for (let step = 0; step < 200; step += 1) {
    const walker = random.pick(walkers);
    if (queue.includes(walker) && random.below(10) === 0) {
      queue.splice(queue.indexOf(walker), 1);
      budget.leave(walker.account);
    } else if (!queue.includes(walker) && random.below(2) === 0) {
      walker.wanted = random.below(random.pick([2, OWN_BYTES + 1, LARGEST_BYTES + 1]));
      if (budget.take(walker.account, walker.wanted)) walker.held.push(walker.wanted);
      else queue.push(walker);
    } else if (walker.held.length > 0) {
      const [bytes = 0] = walker.held.splice(random.below(walker.held.length), 1);
      budget.give(walker.account, bytes);
    }
    check();
  }
  for (const walker of walkers) {
    if (queue.includes(walker)) queue.splice(queue.indexOf(walker), 1);
    budget.leave(walker.account);
    for (let bytes = walker.held.pop(); bytes !== undefined; bytes = walker.held.pop()) {
      budget.give(walker.account, bytes);
    }
  }
  assert.equal(budget.heldBytes, 0, `${place}: something is left`);
}
