import { readFile } from 'node:fs/promises';
import { EXIT } from '../../shared/cli/exit.ts';
import { PosternError } from '../../shared/errors.ts';
import { createLogger } from '../../shared/log.ts';
import { assertMode } from '../disk/mode.ts';
import { attachVolume } from './attach.ts';
import { checkVolume } from './check.ts';
import { parseSize } from './config.ts';
import { type ConfiguredVolume, readVolumes } from './configured.ts';
import { createVolume, type VolumeAccess } from './create.ts';
import type { Volume } from './engine.ts';
import type { VolumeLog } from './environment.ts';
import { collectGarbage } from './gc.ts';
import type { FlushMode } from './header.ts';
import { inspectVolume } from './inspect.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import { type CommandContext, openAccess } from './open-access.ts';
import { type Progress, progressOn } from './progress.ts';
import { rekey } from './rekey.ts';
import { createSnapshot, deleteSnapshot, findSnapshot, restoreSnapshot } from './snapshot.ts';
import { volumeStatus } from './status.ts';
import { throughAgent } from './through-agent.ts';

/** A token is 64 bytes, or their hex. */
const TOKEN_BYTES = 64;

export interface Options {
  readonly config: string;
  readonly json?: boolean;
  readonly takeover?: boolean;
  readonly dryRun?: boolean;
  readonly delete?: boolean;
  readonly yes?: boolean;
  readonly token?: string;
  readonly size?: number;
  readonly mode?: FlushMode;
  readonly ownerKey?: Buffer;
}

export interface Call {
  readonly access: VolumeAccess;
  readonly options: Options;
  /** What stands behind the volume's name. */
  readonly argument: string;
  /** The mode that the guest's configuration asks for. */
  readonly mode: FlushMode | undefined;
  readonly progress: Progress;
  /** Of the guest's agent, unless the volume is to be taken from it. */
  readonly agentSocket: string | undefined;
}

/** What an action found: for machines, and in words. */
export interface Result {
  readonly value: object;
  readonly text: string;
  readonly exitCode?: number;
}

export type Action = (call: Call) => Promise<Result>;
type Environment = Readonly<Record<string, string | undefined>>;

/** Opens what the configuration names for an action, prints what it found, and closes. */
export function withVolume(context: CommandContext, environment: Environment) {
  return (action: Action) =>
    async (name: string, ...rest: unknown[]): Promise<void> => {
      const options = rest.at(-2) as Options;
      const argument = typeof rest[0] === 'string' ? rest[0] : '';
      const volumes = await readVolumes(options.config);
      const config = volumes.find((volume) => volume.name === name);
      if (config === undefined) {
        throw unknownVolume(options.config, name, volumes);
      }
      const log = createLogger('volume', options.json ? 'json' : 'auto');
      const opened = await openAccess(config, { ...context, environment, log });
      const progress = progressOn(process.stderr, options.json === true);
      try {
        // A command has no readers besides itself that a deleted object could be pulled away from.
        const access = {
          ...opened.access,
          limits: { ...DEFAULT_LIMITS, ...config.limits, deleteGraceMs: 0 },
        };
        const agentSocket = options.takeover ? undefined : config.agentSocket;
        const shown = { progress: progress.show };
        const call = { access, options, argument, mode: config.mode, agentSocket, ...shown };
        const result = await action(call).finally(progress.end);
        print(result, options);
      } finally {
        await opened.close();
      }
    };
}

function unknownVolume(file: string, name: string, volumes: readonly ConfiguredVolume[]): PosternError {
  const known = volumes.map((volume) => volume.name).join(', ');
  const text = [
    `${file}: no volume ${name}; there is ${known === '' ? 'none' : known}.`,
    `To have a new one, name it under volumes there, then make it: postern volume create ${name} --size SIZE --config ${file}`,
  ];
  return new PosternError('ERR_CONFIG_INVALID', text.join(' '));
}

export function list(context: CommandContext, environment: Environment) {
  return async (options: Options): Promise<void> => {
    const volumes = await readVolumes(options.config);
    const log = createLogger('volume', options.json ? 'json' : 'auto');
    const rows = [];
    for (const config of volumes) rows.push(await listed(config, log, context, environment));
    const text = rows.map(({ name, state }) => `${name}\t${state}`).join('\n');
    print({ value: rows, text }, options);
  };
}

async function listed(
  config: ConfiguredVolume,
  log: VolumeLog,
  context: CommandContext,
  environment: Environment,
) {
  const { name } = config;
  const opened = await openAccess(config, { ...context, environment, log });
  try {
    const status = await volumeStatus(await inspectVolume(opened.access));
    const state = status.attached ? 'attached' : 'detached';
    return { name, state: `${state}, ${status.sizeBytes} bytes`, sizeBytes: status.sizeBytes };
  } catch (error) {
    if (!(error instanceof PosternError)) throw error;
    return {
      name,
      state: error.code === 'ERR_VOLUME_NOT_FOUND' ? 'does not exist' : `${error.code}: ${error.message}`,
    };
  } finally {
    await opened.close();
  }
}

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
    const { snapshots } = await volumeStatus(await inspectVolume(access));
    const found = snapshots.find((other) => other.name === name);
    if (found === undefined) throw new PosternError('ERR_VOLUME_SNAPSHOT', `there is no snapshot ${name}`);
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

export const rekeyed: Action = (call) =>
  attached(call, async (volume) => {
    const value = await rekey(volume, call.progress);
    const rest = value.isDrained ? 'the old keys are destroyed' : 'snapshots keep older keys alive';
    return { value, text: `generation ${value.generation}; ${rest}` };
  });

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

function print({ value, text, exitCode }: Result, { json }: Options): void {
  process.stdout.write(`${json ? JSON.stringify(value) : text}\n`);
  if (exitCode !== undefined) process.exitCode = exitCode;
}
