import type { Command } from 'commander';
import { isPosternError, PosternError } from '../../../shared/errors.ts';
import { createLogger } from '../../../shared/log.ts';
import { loadGuestConfig } from '../../config/load.ts';
import { relayForCommand } from '../../objects/command-relay.ts';
import { loadSessionKey } from '../../session/key.ts';
import { attachVolume } from '../../volume/attach.ts';
import type { VolumeAccess } from '../../volume/create.ts';
import type { Volume } from '../../volume/engine.ts';
import { accessOf } from '../access.ts';
import type { VolumeConfig } from '../config.ts';
import { assertMode } from '../mode.ts';

/** Lines of progress that a person reads; a fast store would make thousands a second. */
const PROGRESS_EVERY_MS = 500;

export interface SharedFlags {
  readonly config?: string;
  readonly json?: boolean;
  readonly takeover?: boolean;
  readonly dryRun?: boolean;
}

export interface NamedVolume {
  readonly name: string;
  readonly config: VolumeConfig;
  readonly access: VolumeAccess;
}

export interface CommandContext {
  readonly json: boolean;
  readonly takeover: boolean;
  readonly dryRun: boolean;
  readonly volumes: readonly NamedVolume[];
  /** The result, on standard output: as JSON, or as lines for a person. */
  print(result: object, lines: readonly string[]): void;
  /** How far it is, on standard error; nothing with --json. */
  progress(line: string): void;
}

/** Runs `work` with the volumes of the configuration within reach. @throws PosternError */
export async function withVolumes(
  command: Command,
  environment: NodeJS.ProcessEnv,
  work: (context: CommandContext) => Promise<void>,
): Promise<void> {
  const flags = command.optsWithGlobals<SharedFlags>();
  if (flags.config === undefined) {
    const text = `postern volume ${command.name()}: expected --config FILE, found nothing (see postern volume --help)`;
    throw new PosternError('ERR_CONFIG_INVALID', text);
  }
  const config = await loadGuestConfig(flags.config);
  const logger = createLogger('volume', config.log.format, 'warn');
  const { relay, close } = relayForCommand(config.parent, await loadSessionKey(config.sessionKey));
  const surroundings = { store: relay.store, logger, environment };
  const volumes = Object.entries(config.volumes).map(([name, entry]) => ({
    name,
    config: entry,
    access: accessOf(name, entry, surroundings),
  }));
  try {
    await work({ ...outputs(flags), volumes });
  } finally {
    await close();
  }
}

/** As `withVolumes`, for the one that the command names. */
export function withVolume(
  command: Command,
  environment: NodeJS.ProcessEnv,
  name: string,
  work: (volume: NamedVolume, context: CommandContext) => Promise<void>,
): Promise<void> {
  return withVolumes(command, environment, async (context) => {
    const volume = context.volumes.find((other) => other.name === name);
    if (volume !== undefined) return work(volume, context);
    const names = context.volumes.map((other) => other.name).join(', ') || 'which is empty';
    throw new PosternError('ERR_CONFIG_INVALID', `expected a volume of volumes (${names}), found ${name}`);
  });
}

/**
 * Attaches the volume for as long as `work` takes, and gives it up again, also after a failure that leaves it whole.
 * @throws PosternError ERR_VOLUME_IN_USE without --takeover
 */
export async function withAttached<T>(
  { name, config, access }: NamedVolume,
  { takeover }: CommandContext,
  work: (volume: Volume) => Promise<T>,
): Promise<T> {
  const volume = await attachVolume({ ...access, takeover }).catch((error: unknown) => {
    throw isPosternError(error, 'ERR_VOLUME_IN_USE') ? inUse(name, error) : error;
  });
  try {
    assertMode(name, volume.parts.header.mode, config.mode);
    return await work(volume);
  } finally {
    if (volume.parts.health.state === 'serving') await volume.detach();
    volume.close();
  }
}

export function inUse(name: string, cause?: unknown): PosternError {
  const text = `volume ${name} was not detached: an agent has it (stop that first), or its last one crashed; --takeover goes on all the same and shuts the other out`;
  return new PosternError('ERR_VOLUME_IN_USE', text, { cause });
}

function outputs({
  json = false,
  takeover = false,
  dryRun = false,
}: SharedFlags): Omit<CommandContext, 'volumes'> {
  let saidAt = Number.NEGATIVE_INFINITY;
  return {
    json,
    takeover,
    dryRun,
    print: (result, lines) => {
      const text = json ? `${JSON.stringify(result, null, 2)}\n` : lines.map((line) => `${line}\n`).join('');
      process.stdout.write(text);
    },
    progress: (line) => {
      const now = performance.now();
      if (json || now - saidAt < PROGRESS_EVERY_MS) return;
      saidAt = now;
      process.stderr.write(`${line}\n`);
    },
  };
}
