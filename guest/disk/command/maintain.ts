import { readFile } from 'node:fs/promises';
import { EXIT } from '../../../shared/cli/exit.ts';
import { PosternError } from '../../../shared/errors.ts';
import { checkVolume } from '../../volume/check.ts';
import { createVolume } from '../../volume/create.ts';
import { collectGarbage } from '../../volume/gc.ts';
import { inspectVolume } from '../../volume/inspect.ts';
import { rekey } from '../../volume/rekey.ts';
import { createSnapshot, deleteSnapshot, findSnapshot, restoreSnapshot } from '../../volume/snapshot.ts';
import { describeMode } from '../mode.ts';
import { type CommandContext, inUse, type NamedVolume, withAttached } from './context.ts';
import { formatSize, parseSize } from './size.ts';

/** Raw Ed25519: a public key of 32 bytes, a signature of 64; as hex with a line end at most. */
const TOKEN_BYTES = 64;
const OWNER_KEY_BYTES = 32;

export async function create(
  { name, config, access }: NamedVolume,
  { print }: CommandContext,
  flags: { readonly size: string; readonly ownerKey?: string },
): Promise<void> {
  const sizeBytes = parseSize(flags.size);
  const ownerKey = flags.ownerKey === undefined ? undefined : await readHex(flags.ownerKey, OWNER_KEY_BYTES);
  const { mode } = config;
  const header = await createVolume({
    ...access,
    sizeBytes,
    mode,
    ...(ownerKey === undefined ? {} : { ownerKey }),
  });
  print(
    { version: 1, name, sizeBytes, mode: describeMode(mode), volumeId: header.volumeId.toString('hex') },
    [
      `created volume ${name}, ${formatSize(sizeBytes)}, mode ${describeMode(mode)}`,
      'It is empty: a file system is made on it when it is attached.',
    ],
  );
}

export async function snapshot(
  volume: NamedVolume,
  context: CommandContext,
  name: string,
  flags: { readonly delete?: boolean },
): Promise<void> {
  const dropping = flags.delete === true;
  await withAttached(volume, context, async (attached) => {
    if (dropping && context.dryRun) findSnapshot(attached, name);
    else if (dropping) await deleteSnapshot(attached, name);
    else if (!context.dryRun) await createSnapshot(attached, name);
  });
  const done = dropping ? 'deleted' : 'made';
  const verb = context.dryRun ? `would be ${done}` : done;
  context.print(
    { version: 1, volume: volume.name, snapshot: name, deleted: dropping, dryRun: context.dryRun },
    [`snapshot ${name} of volume ${volume.name} ${verb}`],
  );
}

export async function restore(
  volume: NamedVolume,
  context: CommandContext,
  name: string,
  flags: { readonly token?: string },
): Promise<void> {
  const token = flags.token === undefined ? undefined : await readHex(flags.token, TOKEN_BYTES);
  const sizeBytes = await withAttached(volume, context, async (attached) => {
    const found = findSnapshot(attached, name);
    if (!context.dryRun) await restoreSnapshot(attached, name, token);
    return found.sizeBytes;
  });
  const verb = context.dryRun ? 'would be' : 'is';
  context.print({ version: 1, volume: volume.name, snapshot: name, sizeBytes, dryRun: context.dryRun }, [
    `volume ${volume.name} ${verb} as snapshot ${name} was, ${formatSize(sizeBytes)}; what was written since is gone`,
  ]);
}

export async function resize(
  volume: NamedVolume,
  context: CommandContext,
  flags: { readonly size: string },
): Promise<void> {
  const sizeBytes = parseSize(flags.size);
  const before = await withAttached(volume, context, async (attached) => {
    const { sizeBytes: found } = attached;
    if (sizeBytes !== found) await attached.grow(sizeBytes);
    return found;
  });
  context.print({ version: 1, volume: volume.name, sizeBytes, sizeBytesBefore: before }, [
    `volume ${volume.name}: ${formatSize(before)} before, ${formatSize(sizeBytes)} now; the file system on it grows by its own tool`,
  ]);
}

export async function check(
  { name, access }: NamedVolume,
  { print, progress }: CommandContext,
): Promise<void> {
  const inspected = await inspectVolume(access);
  const report = await checkVolume(inspected, ({ segments, bytes }) =>
    progress(`${segments} segments, ${formatSize(bytes)} verified`),
  );
  const { segments, bytes, blocks, snapshots, orphans, orphanBytes, problemCount, problems } = report;
  print({ version: 1, volume: name, detached: inspected.head.record.detach, ...report }, [
    `${segments} segments, ${formatSize(bytes)}, ${blocks} blocks and ${snapshots} snapshots verified`,
    `${orphans} objects that nothing needs, ${formatSize(orphanBytes)}${orphans === 0 ? '' : ': postern volume gc deletes them'}`,
    ...problems.map((problem) => `problem: ${problem}`),
    problemCount === 0 ? `volume ${name} is whole` : `volume ${name} has ${problemCount} problems`,
  ]);
  if (problemCount > 0) process.exitCode = EXIT.failed;
}

export async function gc(volume: NamedVolume, context: CommandContext): Promise<void> {
  const { dryRun, print, progress } = context;
  const report = await withAttached(volume, context, (attached) =>
    collectGarbage(attached, { dryRun, onProgress: progress }),
  );
  const orphans = `${report.orphans} objects that nothing needs, ${formatSize(report.orphanBytes)}`;
  print({ version: 1, volume: volume.name, dryRun, ...report }, [
    dryRun
      ? `would delete ${orphans}, and rewrite what is less than half alive`
      : `rewrote ${report.repackedSegments} segments, deleted ${report.deletedObjects} freed objects and ${orphans}`,
  ]);
}

export async function newKeys(volume: NamedVolume, context: CommandContext): Promise<void> {
  const report = await withAttached(volume, context, (attached) => rekey(attached, context.progress));
  context.print({ version: 1, volume: volume.name, ...report }, [
    `volume ${volume.name} has keys of generation ${report.generation}`,
    report.isDrained
      ? 'everything is sealed under them, and the keys before are destroyed'
      : 'snapshots still need keys before; when they are deleted, run it again',
  ]);
}

/** @throws PosternError ERR_VOLUME_IN_USE */
export async function assertDetached(
  { name, access }: NamedVolume,
  { takeover }: CommandContext,
): Promise<void> {
  const { head } = await inspectVolume(access);
  if (!head.record.detach && !takeover) throw inUse(name);
}

async function readHex(file: string, size: number): Promise<Buffer> {
  const text = await readFile(file, 'utf8').catch((cause: Error) => {
    throw new PosternError('ERR_CONFIG_UNREADABLE', `${file}: ${cause.message}`, { cause });
  });
  const bytes = Buffer.from(text.trim(), 'hex');
  if (bytes.length === size && text.trim().length === 2 * size) return bytes;
  throw new PosternError('ERR_CONFIG_INVALID', `${file}: expected ${2 * size} hex digits`);
}
