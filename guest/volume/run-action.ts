import { PosternError } from '../../shared/errors.ts';
import { createLogger } from '../../shared/log.ts';
import { type ConfiguredVolume, readVolumes } from './configured.ts';
import type { VolumeAccess } from './create.ts';
import type { VolumeLog } from './environment.ts';
import type { FlushMode } from './header.ts';
import { inspectVolume } from './inspect.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import { type CommandContext, openAccess } from './open-access.ts';
import { type Progress, progressOn } from './progress.ts';
import { volumeStatus } from './status.ts';

/** Somebody waits for a command, and can say it again. */
const COMMAND_OUTAGE_MS = 60_000;

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
          limits: {
            ...DEFAULT_LIMITS,
            ...config.limits,
            deleteGraceMs: 0,
            outageTimeoutMs: COMMAND_OUTAGE_MS,
          },
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

function print({ value, text, exitCode }: Result, { json }: Options): void {
  process.stdout.write(`${json ? JSON.stringify(value) : text}\n`);
  if (exitCode !== undefined) process.exitCode = exitCode;
}
