import { spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { constants } from 'node:os';
import type { Audit } from '../audit.ts';
import type { WorkloadConfig } from '../config/schema.ts';
import { type Account, findAccount } from './account.ts';
import { type BoundProxies, proxyEnvironment } from './environment.ts';
import { SignalForwarder } from './signals.ts';

/** What a shell exits with when the command is not there, or is there and cannot be run. */
const EXIT_NOT_FOUND = 127;
const EXIT_NOT_RUNNABLE = 126;
const EXIT_SIGNAL_BASE = 128;

export interface WorkloadOptions {
  readonly command: readonly string[];
  readonly config: WorkloadConfig;
  readonly proxies: BoundProxies;
  readonly environment: NodeJS.ProcessEnv;
  readonly audit: Audit;
}

/**
 * Starts the workload and resolves with the exit code that the agent exits with.
 * @throws PosternError ERR_WORKLOAD_ACCOUNT
 */
export async function runWorkload(options: WorkloadOptions): Promise<number> {
  const { config, audit } = options;
  // From here on, so that a signal that comes while the start is prepared is not lost.
  const signals = new SignalForwarder();
  try {
    const account = await findAccount(config);
    warnUnprotected(account, audit);
    const { workingDirectory } = config;
    // Else a folder that is missing would look like a command that is.
    if (workingDirectory !== undefined && !(await isFolder(workingDirectory))) {
      audit.event('error', 'workload.exited', `${workingDirectory} is no folder to start the workload in`);
      return EXIT_NOT_RUNNABLE;
    }
    return await startProcess(options, account, signals);
  } finally {
    signals.close();
  }
}

function startProcess(
  options: WorkloadOptions,
  account: Account | undefined,
  signals: SignalForwarder,
): Promise<number> {
  const [program = '', ...args] = options.command;
  const { audit, config } = options;
  const cwd = config.workingDirectory ?? process.cwd();
  const child = spawn(program, args, { cwd, env: environmentOf(options), stdio: 'inherit', ...account });
  return new Promise((resolve) => {
    child.once('spawn', () => {
      audit.event('info', 'workload.started', `workload ${program} started`, { pid: child.pid, ...account });
      signals.forwardTo((signal) => child.kill(signal));
    });
    child.once('error', (error: NodeJS.ErrnoException) => {
      if (child.pid !== undefined) return;
      const why = startProblem(error, account);
      audit.event('error', 'workload.exited', `workload ${program} cannot be started: ${why}`);
      resolve(error.code === 'ENOENT' ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE);
    });
    child.once('exit', (code, signal) => {
      const exitCode = code ?? EXIT_SIGNAL_BASE + (signal === null ? 0 : constants.signals[signal]);
      audit.event('info', 'workload.exited', `workload exited with ${signal ?? code}`, { exitCode });
      resolve(exitCode);
    });
  });
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}

function environmentOf({ environment, config, proxies }: WorkloadOptions): NodeJS.ProcessEnv {
  const proxy = config.proxyEnvironment ? proxyEnvironment(proxies) : {};
  return { ...environment, ...proxy, ...config.environment };
}

function startProblem(error: NodeJS.ErrnoException, account: Account | undefined): string {
  if (error.code === 'EPERM' && account !== undefined) return 'only root can run it as another user';
  return error.message;
}

/** The session key is what keeps the workload from going round the agent; it must not be able to read it. */
function warnUnprotected(account: Account | undefined, audit: Audit): void {
  const uid = account?.uid ?? process.geteuid?.();
  if (uid !== 0 && uid !== process.geteuid?.()) return;
  const who = uid === 0 ? 'root' : 'the same user as the agent';
  const advice = 'set workload.user to a user of its own';
  audit.event(
    'warn',
    'workload.unprotected',
    `the workload runs as ${who} and can read the session key: ${advice}`,
  );
}
