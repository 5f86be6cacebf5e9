import { readFile } from 'node:fs/promises';
import { EXIT } from '../shared/cli/exit.ts';
import { isPosternError } from '../shared/errors.ts';
import { configureBulk } from '../shared/flow/bulk-threads.ts';
import { startFlow } from '../shared/flow/splice.ts';
import { createLogger, type LogFormat, type Logger, type LogLevel } from '../shared/log.ts';
import type { ParentConfig } from './config/config.ts';
import { Parent } from './parent.ts';

export interface ServeOptions {
  readonly format: LogFormat;
  readonly level: LogLevel;
  /** Reads the configuration anew. @throws PosternError ERR_CONFIG_* */
  reread(): Promise<ParentConfig>;
}

/**
 * Serves until a signal ends it, and says the exit code. Start-up failures reject, with nothing left listening.
 * @throws PosternError
 */
export async function serve(config: ParentConfig, options: ServeOptions): Promise<number> {
  const log = createLogger('parent', options.format, options.level);
  configureBulk({ threadCount: config.bulkThreads, log });
  let current = config;
  let parent: Parent | undefined;
  let reloads = 0;
  const onReload = async (): Promise<void> => {
    reloads += 1;
    if (parent !== undefined) current = (await reload(parent, options, log)) ?? current;
  };
  // Before anything is bound: a SIGHUP that nobody handles ends a process.
  process.on('SIGHUP', () => void onReload());
  parent = await Parent.start(config, { log, version: await ownVersion(), startFlow });
  const guests = Object.keys(config.guests).length;
  log.info({ event: 'parent.up', guests, admin: parent.whereIs('admin') ?? 'off' }, 'serving');
  if (reloads > 0) await onReload();
  const signal = await firstSignal(log);
  log.info({ event: 'parent.draining', signal, drainTimeoutMs: current.drainTimeoutMs }, 'draining');
  await parent.drain(current.drainTimeoutMs);
  return EXIT.ok;
}

/** The configuration that is in force now, undefined when it is the old one. */
async function reload(parent: Parent, options: ServeOptions, log: Logger): Promise<ParentConfig | undefined> {
  try {
    const config = await options.reread();
    await parent.reload(config);
    configureBulk({ threadCount: config.bulkThreads });
    parent.metrics.onReload('applied');
    log.info(
      { event: 'config.reloaded', guests: Object.keys(config.guests).length },
      'configuration reloaded',
    );
    return config;
  } catch (error) {
    if (!isPosternError(error)) throw error;
    parent.metrics.onReload('failed');
    const about = { event: 'config.refused', code: error.code, reason: error.message };
    log.error(about, 'reload failed; the configuration is as it was');
    return undefined;
  }
}

/** Resolves with the first signal to stop; a second one, from then on, ends the process at once. */
function firstSignal(log: Logger): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let stopping = false;
    const onSignal = (signal: NodeJS.Signals): void => {
      if (stopping) {
        log.warn({ event: 'parent.killed', signal }, 'ended at once, by a second signal');
        process.exit(EXIT.failed);
      }
      stopping = true;
      resolve(signal);
    };
    process.on('SIGTERM', onSignal).on('SIGINT', onSignal);
  });
}

async function ownVersion(): Promise<string> {
  // The sources are one folder below package.json, the built files two.
  for (const up of ['../package.json', '../../package.json']) {
    const text = await readFile(new URL(up, import.meta.url), 'utf8').catch(() => undefined);
    if (text !== undefined) return (JSON.parse(text) as { version: string }).version;
  }
  return 'unknown';
}
