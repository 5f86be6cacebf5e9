import { readFile } from 'node:fs/promises';
import { EXIT } from '../../shared/cli/exit.ts';
import { PosternError } from '../../shared/errors.ts';
import { assertMode } from '../disk/mode.ts';
import { attachVolume } from './attach.ts';
import { checkVolume } from './check.ts';
import { parseSize } from './config.ts';
import { createVolume, type VolumeAccess } from './create.ts';
import type { Volume } from './engine.ts';
import { collectGarbage } from './gc.ts';
import { inspectVolume } from './inspect.ts';
import { rekey } from './rekey.ts';
import type { Action, Call, Result } from './run-action.ts';
import { createSnapshot, deleteSnapshot, findSnapshot, restoreSnapshot } from './snapshot.ts';
import { type SnapshotStatus, type VolumeStatus, volumeStatus } from './status.ts';
import { throughAgent } from './through-agent.ts';

/** A token is 64 bytes, or their hex. */
const TOKEN_BYTES = 64;

export const create: Action = async ({ access, options, mode: configured }) => {
  const { size: sizeBytes = 0, ownerKey } = options;
  const mode = options.mode ?? configured ?? { kind: 'strict' };
  if (configured !== undefined) assertMode(access.name, mode, configured);
  const header = await createVolume({ ...access, sizeBytes, mode, ...(ownerKey ? { ownerKey } : {}) });
  const volumeId = header.volumeId.toString('hex');
  return {
    value: { name: header.name, volumeId, sizeBytes, mode },
    text: `volume ${header.name} of ${sizeBytes} bytes is there, mode ${mode.kind}, id ${volumeId}`,
  };
};

export const status: Action = async ({ access }) => {
  const value = await volumeStatus(await inspectVolume(access));
  const { snapshots, mode, ...rest } = value;
  const lines = Object.entries(rest).map(([key, entry]) => `${key}\t${entry}`);
  lines.push(`mode\t${mode.kind}`);
  for (const snapshot of snapshots)
    lines.push(`snapshot\t${snapshot.name}\t${snapshot.time}\t${snapshot.id}`);
  return { value, text: lines.join('\n') };
};

export const snapshot: Action = async (call) => {
  const { argument: name, options, access, agentSocket } = call;
  if (options.dryRun) {
    if (!options.delete) throw new PosternError('ERR_CONFIG_INVALID', '--dry-run goes with --delete');
    const found = await snapshotOf(access, name);
    const text = `would delete snapshot ${name} of ${found.time}, commit ${found.seq}`;
    return { value: { dryRun: true, ...found }, text };
  }
  const done = options.delete ? 'deleted' : 'created';
  const result = { value: { snapshot: name, done }, text: `snapshot ${name} ${done}` };
  const order = options.delete ? 'drop-snapshot' : 'snapshot';
  if (await throughAgent(agentSocket, { order, volume: access.name, snapshot: name })) return result;
  return attached(call, async (volume) => {
    if (options.delete) await deleteSnapshot(volume, name);
    else await createSnapshot(volume, name);
    return result;
  });
};

export const restore: Action = async (call) => {
  const { argument: name, options, access } = call;
  if (options.dryRun) {
    const found = await snapshotOf(access, name);
    return {
      value: { dryRun: true, ...found },
      text: `would restore ${name} of ${found.time}, commit ${found.seq}`,
    };
  }
  const token = options.token === undefined ? undefined : await readToken(options.token);
  return attached(call, async (volume) => {
    const { seq } = findSnapshot(volume, name);
    await restoreSnapshot(volume, name, token, call.progress);
    return { value: { restored: name, seq }, text: `the volume is as it was in snapshot ${name}` };
  });
};

async function snapshotOf(access: VolumeAccess, name: string): Promise<SnapshotStatus> {
  const { snapshots } = await volumeStatus(await inspectVolume(access));
  const found = snapshots.find((other) => other.name === name);
  if (found === undefined) throw new PosternError('ERR_VOLUME_SNAPSHOT', `there is no snapshot ${name}`);
  return found;
}

export const resize: Action = async (call) => {
  const { argument, access, agentSocket } = call;
  const sizeBytes = parseSize(argument);
  if (sizeBytes === undefined)
    throw new PosternError('ERR_CONFIG_INVALID', `${argument}: expected a size such as 100G`);
  const live = await throughAgent(agentSocket, { order: 'resize', volume: access.name, sizeBytes });
  const text = `the volume has ${sizeBytes} bytes`;
  if (live !== undefined) {
    const { device } = live;
    const seen =
      device === undefined
        ? 'clients of its socket see them when they connect again'
        : `and so has ${device}: grow the file system (resize2fs, btrfs filesystem resize)`;
    return { value: live, text: `${text}; ${seen}` };
  }
  return attached(call, async (volume) => {
    await volume.grow(sizeBytes);
    return { value: { sizeBytes }, text };
  });
};

export const check: Action = async ({ access, progress }) => {
  const report = await checkVolume(await inspectVolume(access), progress);
  const { problems, problemCount, segments, bytes, blocks, orphans, orphanBytes } = report;
  const summary = `${segments} segments, ${bytes} bytes, ${blocks} blocks verified; ${orphans} orphans of ${orphanBytes} bytes; ${problemCount} problems`;
  return {
    value: report,
    text: [...problems, summary].join('\n'),
    exitCode: problemCount === 0 ? EXIT.ok : EXIT.failed,
  };
};

export const gc: Action = (call) =>
  attached(call, async (volume) => {
    const dryRun = call.options.dryRun === true;
    const value = await collectGarbage(volume, { dryRun, onProgress: call.progress });
    const { orphans, orphanBytes, repackedSegments, deletedObjects } = value;
    const text = dryRun
      ? `would delete ${orphans} orphans of ${orphanBytes} bytes`
      : `repacked ${repackedSegments} segments, deleted ${deletedObjects} dead objects and ${orphans} orphans of ${orphanBytes} bytes`;
    return { value, text };
  });

export const rekeyed: Action = async (call) => {
  if (call.options.dryRun) return wouldRekey(await volumeStatus(await inspectVolume(call.access)));
  return attached(call, async (volume) => {
    const value = await rekey(volume, call.progress);
    const rest = value.isDrained ? 'the old keys are destroyed' : 'snapshots keep older keys alive';
    return { value, text: `generation ${value.generation}; ${rest}` };
  });
};

function wouldRekey({ generation, segments, storedBytes, snapshots }: VolumeStatus): Result {
  const kept = snapshots.map(({ name }) => name);
  const keys =
    kept.length === 0
      ? `the keys of generation ${generation} and before would be destroyed`
      : `the old keys would stay for the snapshots ${kept.join(', ')}`;
  const text = `would seal ${segments} segments, ${storedBytes} bytes, under generation ${generation + 1}; ${keys}`;
  return { value: { dryRun: true, generation: generation + 1, segments, storedBytes, keptFor: kept }, text };
}

async function attached(
  { access, options, mode }: Call,
  work: (volume: Volume) => Promise<Result>,
): Promise<Result> {
  const volume = await attachVolume({ ...access, takeover: options.takeover === true });
  try {
    if (mode !== undefined) assertMode(access.name, volume.parts.header.mode, mode);
    const result = await work(volume);
    await volume.detach();
    return result;
  } catch (error) {
    // What failed in between may be half done in memory, never in the store: the next attach goes on from what was committed.
    if (volume.parts.health.state === 'serving') await volume.detach();
    volume.close();
    throw error;
  }
}

async function readToken(path: string): Promise<Buffer> {
  const bytes = await readFile(path);
  if (bytes.length === TOKEN_BYTES) return bytes;
  const text = bytes.toString('latin1').trim();
  if (/^[0-9a-fA-F]{128}$/.test(text)) return Buffer.from(text, 'hex');
  throw new PosternError('ERR_VOLUME_TOKEN', `${path}: a token is ${TOKEN_BYTES} bytes or their hex`);
}
