import { isPosternError } from '../../../shared/errors.ts';
import { type InspectedVolume, inspectVolume } from '../../volume/inspect.ts';
import { BLOCK_BYTES } from '../../volume/limits.ts';
import { segmentBytes } from '../../volume/segment.ts';
import { prefixOf } from '../config.ts';
import { describeMode } from '../mode.ts';
import type { CommandContext, NamedVolume } from './context.ts';
import { formatSize } from './size.ts';

/** What `postern volume status --json` prints. Fields are added, never renamed. */
export interface VolumeStatus {
  readonly version: 1;
  readonly name: string;
  readonly prefix: string;
  readonly volumeId: string;
  readonly mode: string;
  readonly anchor: string;
  readonly sizeBytes: number;
  /** False: an agent has it, or its last one crashed. */
  readonly detached: boolean;
  /** What an owner signs a restore for, with the volume's id and the snapshot's. */
  readonly head: {
    readonly epoch: number;
    readonly seq: number;
    readonly hash: string;
    readonly time: string;
  };
  /** Commits that are stored and not anchored; the next attach takes them in. */
  readonly unanchoredCommits: number;
  readonly keyGenerations: readonly [number, number];
  readonly stored: { readonly segments: number; readonly bytes: number; readonly liveBytes: number };
  readonly ownerSigns: boolean;
  readonly snapshots: readonly SnapshotStatus[];
}

interface SnapshotStatus {
  readonly name: string;
  readonly id: string;
  readonly sizeBytes: number;
  readonly time: string;
}

export async function volumeStatus({ name, config, access }: NamedVolume): Promise<VolumeStatus> {
  const volume = await inspectVolume(access);
  const { header, head, rolled, checkpoint } = volume;
  const { record, point } = head;
  return {
    version: 1,
    name,
    prefix: prefixOf(name, config),
    volumeId: header.volumeId.toString('hex'),
    mode: describeMode(header.mode),
    anchor: access.anchor?.capabilities.kind ?? 'none',
    sizeBytes: record.sizeBytes,
    detached: record.detach,
    head: { epoch: point.epoch, seq: point.seq, hash: point.hash.toString('hex'), time: iso(record.timeMs) },
    unanchoredCommits: rolled.length,
    keyGenerations: [record.oldestGeneration, head.header.generation],
    stored: await measure(volume),
    ownerSigns: header.ownerKey !== undefined,
    snapshots: checkpoint.snapshots.map((snapshot) => ({
      name: snapshot.name,
      id: snapshot.id.toString('hex'),
      sizeBytes: snapshot.sizeBytes,
      time: iso(snapshot.timeMs),
    })),
  };
}

async function measure({ index, head }: InspectedVolume): Promise<VolumeStatus['stored']> {
  const stored = { segments: 0, bytes: 0, liveBytes: 0 };
  for await (const { entry } of index.segments(head.record.nextSegment)) {
    stored.segments += 1;
    stored.bytes += segmentBytes(entry);
    stored.liveBytes += entry.liveBlocks * BLOCK_BYTES;
  }
  return stored;
}

export function statusLines(status: VolumeStatus): string[] {
  const { head, stored } = status;
  const owner = status.ownerSigns ? `; restores need the owner's signature` : '';
  return [
    `volume     ${status.name}, ${formatSize(status.sizeBytes)}, ${status.detached ? 'detached' : 'in use, or not detached by its last agent'}`,
    `keys       ${status.prefix}/…, generations ${status.keyGenerations.join(' to ')}`,
    `mode       ${status.mode}, anchor ${status.anchor}${owner}`,
    `head       commit ${head.epoch}-${head.seq} of ${head.time}, ${status.unanchoredCommits} not anchored`,
    `           ${head.hash}`,
    `stored     ${stored.segments} segments, ${formatSize(stored.bytes)}, of which ${formatSize(stored.liveBytes)} live`,
    ...status.snapshots.map(
      ({ name, sizeBytes, time, id }) => `snapshot   ${name}, ${formatSize(sizeBytes)}, ${time}, ${id}`,
    ),
  ];
}

/** One line for each volume of the configuration, whatever state it is in. */
export async function listVolumes({ volumes, print }: CommandContext): Promise<void> {
  const rows = await Promise.all(volumes.map(listed));
  const lines = rows.map(({ name, state, sizeBytes }) =>
    [name.padEnd(20), (sizeBytes === undefined ? '' : formatSize(sizeBytes)).padEnd(12), state].join(' '),
  );
  print({ version: 1, volumes: rows }, lines.length === 0 ? ['the configuration has no volumes'] : lines);
}

async function listed(volume: NamedVolume) {
  try {
    const { sizeBytes, detached } = await volumeStatus(volume);
    return { name: volume.name, state: detached ? 'detached' : 'in-use', sizeBytes };
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return { name: volume.name, state: error.code === 'ERR_VOLUME_NOT_FOUND' ? 'not-created' : error.code };
  }
}

function iso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
