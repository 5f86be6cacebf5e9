import type { Volume } from './engine.ts';
import { segmentId } from './keys.ts';
import {
  CLAIM_PREFIX,
  COMMIT_PREFIX,
  claimName,
  commitName,
  parseCommitName,
  parseWrapName,
  SEGMENT_PREFIX,
  WRAP_PREFIX,
} from './names.ts';
import type { Progress } from './progress.ts';
import { segmentObjectName } from './segment.ts';

/** Rounds of repacking; each empties what the one before left sparse. */
const ROUNDS_MAX = 8;
const REPORT_PERIOD_MS = 500;
/** Names in memory at a time; past it the segments are taken folder by folder. */
const NAMES_AT_ONCE = 200_000;

export interface GarbageReport {
  readonly repackedSegments: number;
  readonly deletedObjects: number;
  /** Objects that no state needs: what crashed or fenced instances left behind. */
  readonly orphans: number;
  readonly orphanBytes: number;
}

export interface GarbageOptions {
  /** Say what would be done, and delete nothing. */
  readonly dryRun: boolean;
  readonly onProgress?: Progress;
}

/** Repacks what is sparse, deletes what is dead after its grace, and deletes orphans. */
export async function collectGarbage(volume: Volume, options: GarbageOptions): Promise<GarbageReport> {
  const { reaper, repacker, objects } = volume.parts;
  const repackedBefore = repacker.repackedSegments;
  const deletedBefore = reaper.deletedCount;
  if (!options.dryRun) await repackAll(volume, options);
  options.onProgress?.({ step: 'looking for orphans' });
  const orphans = await findOrphans(volume);
  if (!options.dryRun) {
    for (const [index, { name }] of orphans.entries()) {
      options.onProgress?.({ step: 'deleting orphans', deleted: index, of: orphans.length });
      await objects.delete(name);
    }
    options.onProgress?.({ step: 'deleting what is dead' });
    await reaper.drained();
  }
  return {
    repackedSegments: repacker.repackedSegments - repackedBefore,
    deletedObjects: reaper.deletedCount - deletedBefore,
    orphans: orphans.length,
    orphanBytes: orphans.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
  };
}

export async function repackAll(volume: Volume, options: Pick<GarbageOptions, 'onProgress'>): Promise<void> {
  const { checkpointer, repacker } = volume.parts;
  for (let round = 1; round <= ROUNDS_MAX; round += 1) {
    options.onProgress?.({ step: 'looking for what is sparse' });
    await checkpointer.request({ sweep: true });
    const { size } = checkpointer.candidates;
    if (size === 0) return;
    const stop = repeatedly(volume, () => {
      options.onProgress?.({
        step: `repacking, round ${round}`,
        left: checkpointer.candidates.size,
        of: size,
      });
    });
    await repacker.run().finally(stop);
    await volume.flush();
  }
}

/** At once, and again and again until it is stopped. */
function repeatedly({ parts }: Volume, work: () => void): () => void {
  let cancel = (): void => undefined;
  const turn = (): void => {
    work();
    cancel = parts.environment.clock.after(REPORT_PERIOD_MS, turn);
  };
  turn();
  return () => cancel();
}

interface Orphan {
  readonly name: string;
  readonly sizeBytes: number;
}

/**
 * Objects that a LIST shows and no state refers to. The LIST comes first: what was stored after it is not in it, and what was
 * stored before it and is needed is in the state by now, or is this instance's own and on its way.
 */
export async function findOrphans(volume: Volume): Promise<Orphan[]> {
  const listed = await listCommitsAndClaims(volume);
  const orphans: Orphan[] = [];
  const isLarge = volume.parts.sealer.nextSegment > NAMES_AT_ONCE;
  const folders = isLarge
    ? Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
    : [''];
  for (const folder of folders) {
    const prefix = folder === '' ? SEGMENT_PREFIX : `${SEGMENT_PREFIX}${folder}/`;
    const segments = await listAll(volume, prefix);
    const needed = await neededNames(volume, prefix);
    orphans.push(...segments.filter(({ name }) => !needed.has(name)));
  }
  const needed = await neededNames(volume, COMMIT_PREFIX);
  orphans.push(...listed.filter(({ name }) => !needed.has(name) && !isCurrent(volume, name)));
  orphans.push(...(await findOldWraps(volume)));
  return orphans;
}

/**
 * Wraps of generations that seal nothing any more. Those of generations to come stay, which a rekey that ended early left: their
 * names are still to be passed over (see rekey.ts).
 */
export async function findOldWraps(volume: Volume): Promise<Orphan[]> {
  const { oldestGeneration, point } = await volume.parts.sealer.head();
  // Until then a crash would lead back to a state that needs them.
  await volume.parts.anchored(point.seq);
  const wraps = await listAll(volume, WRAP_PREFIX);
  return wraps.filter(({ name }) => (parseWrapName(name) ?? oldestGeneration) < oldestGeneration);
}

async function listCommitsAndClaims(volume: Volume): Promise<Orphan[]> {
  return [...(await listAll(volume, COMMIT_PREFIX)), ...(await listAll(volume, CLAIM_PREFIX))];
}

/** Of this attach: its claim and its commits, none of which is an orphan while it lives. */
function isCurrent({ parts }: Volume, name: string): boolean {
  if (name === claimName(parts.epoch)) return true;
  return parseCommitName(name)?.epoch === parts.epoch;
}

async function listAll(volume: Volume, prefix: string): Promise<Orphan[]> {
  const found: Orphan[] = [];
  for (let after: string | undefined; ; ) {
    const page = await volume.parts.objects.list(prefix, after);
    for (const { key, sizeBytes } of page.objects) found.push({ name: key, sizeBytes });
    if (!page.truncated) return found;
    after = page.objects.at(-1)?.key;
  }
}

async function neededNames(volume: Volume, prefix: string): Promise<Set<string>> {
  const { index, sealer, checkpointer, reaper, ring, epoch, firstSegment } = volume.parts;
  const needed = new Set<string>();
  const add = (name: string): void => {
    if (name.startsWith(prefix)) needed.add(name);
  };
  for await (const { entry } of index.segments(sealer.nextSegment)) add(segmentObjectName(entry));
  for (const { manifest } of checkpointer.snapshots) {
    for (const { entry } of manifest) add(segmentObjectName(entry));
  }
  for (const name of reaper.names) add(name);
  // Until the first checkpoint the first commit is where everything begins, and no segment names it.
  if (checkpointer.coversSeq === 0) add(commitName(0, 0));
  if (prefix.startsWith(SEGMENT_PREFIX)) {
    // This instance's own, in flight or freed by it: the reaper sees to those.
    for (let number = firstSegment; number < sealer.nextSegment; number += 1) {
      const id = segmentId(ring.volume, epoch, number).toString('hex');
      add(`${SEGMENT_PREFIX}${id.slice(0, 2)}/${id}`);
    }
  }
  return needed;
}
