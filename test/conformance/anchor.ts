import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import type { Anchor, AnchorHead, AnchorLeaf, AnchorStep, AnchorVolume } from '../../guest/counter/anchor.ts';
import { append, EMPTY_FRONTIER, type Frontier } from '../../guest/volume/frontier.ts';

/** A volume's log as the engine would keep it. */
export class SampleLog {
  readonly volume: AnchorVolume = { anchorId: randomBytes(16), signingSeed: randomBytes(32) };
  frontier: Frontier = EMPTY_FRONTIER;
  head: AnchorHead;

  constructor() {
    this.head = this.leaf(0);
    this.frontier = append(this.frontier, (this.head as AnchorLeaf).leaf);
  }

  leaf(seq: number, epoch = 0): AnchorLeaf {
    return { epoch, seq, commitHash: randomBytes(32), leaf: randomBytes(32) };
  }

  step(leaves: readonly AnchorLeaf[]): AnchorStep {
    return { from: this.head, frontier: this.frontier.hashes, leaves };
  }

  follow(leaves: readonly AnchorLeaf[]): void {
    for (const leaf of leaves) this.frontier = append(this.frontier, leaf.leaf);
    this.head = leaves.at(-1) ?? this.head;
  }
}

/** What every anchor does, whatever it is made of. `open` gives a second client of the same anchor. */
export function anchorConformance(name: string, open: () => Promise<Anchor>): void {
  describe(`anchor ${name}`, () => {
    test('a volume that was never created is unknown, and stays so', async () => {
      const anchor = await open();
      const log = new SampleLog();
      assert.equal(await anchor.read(log.volume), undefined);
      const result = await anchor.advance(log.volume, log.step([log.leaf(1)]));
      assert.deepEqual(result, { outcome: 'conflict', head: undefined });
      assert.equal(await anchor.read(log.volume), undefined);
    });

    test('creating is done once', async () => {
      const anchor = await open();
      const log = new SampleLog();
      assert.equal(await anchor.create(log.volume, log.head), 'created');
      assert.equal(await anchor.create(log.volume, log.leaf(0)), 'exists');
      assertHead(await anchor.read(log.volume), log.head);
    });

    test('advances along one leaf and along several, and another client sees it', async () => {
      const anchor = await open();
      const log = new SampleLog();
      await anchor.create(log.volume, log.head);
      for (const count of [1, 1, 3]) {
        const first = log.head.seq + 1;
        const leaves = Array.from({ length: count }, (_, index) => log.leaf(first + index));
        assert.deepEqual(await anchor.advance(log.volume, log.step(leaves)), { outcome: 'advanced' });
        log.follow(leaves);
        assertHead(await (await open()).read(log.volume), log.head);
      }
    });

    test('the same advance again is the same success', async () => {
      const anchor = await open();
      const log = new SampleLog();
      await anchor.create(log.volume, log.head);
      const step = log.step([log.leaf(1), log.leaf(2, 5)]);
      assert.deepEqual(await anchor.advance(log.volume, step), { outcome: 'advanced' });
      assert.deepEqual(await anchor.advance(log.volume, step), { outcome: 'advanced' });
    });

    test('compares the hash, not the number', async () => {
      const anchor = await open();
      const log = new SampleLog();
      await anchor.create(log.volume, log.head);
      const mine = log.leaf(1);
      const other = log.step([log.leaf(1)]);
      await anchor.advance(log.volume, log.step([mine]));
      const lost = await anchor.advance(log.volume, other);
      assert.equal(lost.outcome, 'conflict');
      assertHead(lost.outcome === 'conflict' ? lost.head : undefined, mine);
      const fork = { ...log.step([log.leaf(2)]), from: { ...mine, commitHash: randomBytes(32) } };
      assert.equal((await anchor.advance(log.volume, fork)).outcome, 'conflict');
      assertHead(await anchor.read(log.volume), mine);
    });

    test('never goes back', async () => {
      const anchor = await open();
      const log = new SampleLog();
      await anchor.create(log.volume, log.head);
      const before = log.head;
      const steps: AnchorStep[] = [];
      for (let seq = 1; seq <= 4; seq += 1) {
        const leaves = [log.leaf(seq)];
        steps.push(log.step(leaves));
        await anchor.advance(log.volume, log.step(leaves));
        log.follow(leaves);
      }
      for (const step of steps.slice(0, 3)) {
        assert.equal((await anchor.advance(log.volume, step)).outcome, 'conflict');
      }
      const back = {
        from: log.head,
        frontier: log.frontier.hashes,
        leaves: [{ ...log.leaf(5), ...before, seq: 0 }],
      };
      // Whatever it answers to nonsense, it must not move.
      await anchor.advance(log.volume, { ...back, from: before }).catch(() => undefined);
      assertHead(await anchor.read(log.volume), log.head);
    });

    test('of many who race from one head, one wins', async () => {
      const log = new SampleLog();
      await (await open()).create(log.volume, log.head);
      const clients = await Promise.all(Array.from({ length: 8 }, () => open()));
      const results = await Promise.all(
        clients.map((client, index) => client.advance(log.volume, log.step([log.leaf(1, index + 1)]))),
      );
      assert.equal(results.filter(({ outcome }) => outcome === 'advanced').length, 1);
    });

    test('volumes do not touch one another', async () => {
      const anchor = await open();
      const [one, two] = [new SampleLog(), new SampleLog()];
      await anchor.create(one.volume, one.head);
      await anchor.create(two.volume, two.head);
      await anchor.advance(one.volume, one.step([one.leaf(1)]));
      assertHead(await anchor.read(two.volume), two.head);
    });
  });
}

function assertHead(found: AnchorHead | undefined, expected: AnchorHead): void {
  assert.ok(found);
  assert.deepEqual(
    { epoch: found.epoch, seq: found.seq, hash: found.commitHash.toString('hex') },
    { epoch: expected.epoch, seq: expected.seq, hash: expected.commitHash.toString('hex') },
  );
}
