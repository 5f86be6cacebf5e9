import { Command } from 'commander';
import { EXIT } from '../shared/cli/exit.ts';
import { isPosternError, PosternError } from '../shared/errors.ts';
import { configureBulk } from '../shared/flow/bulk-threads.ts';
import { createLogger } from '../shared/log.ts';
import { Agent } from './agent.ts';
import { type GuestConfig, loadGuestConfig } from './config/load.ts';
import { withoutKeys } from './disk/disks.ts';
import { loadSessionKey } from './session/key.ts';
import { formatReport } from './status/report.ts';
import { askStatus } from './status/socket.ts';
import { loadProcessCalls } from './workload/native.ts';
import { Reaper } from './workload/reaper.ts';
import { runWorkload } from './workload/run.ts';

const EXAMPLES = `
The agent opens one session with the parent, then serves programs in the guest: a SOCKS5 and an HTTP proxy on
loopback, and clients from outside on the ports that the policy's ingress names. What the policy does not allow is
refused here, with a reason, and no bytes leave the guest.

Examples:
  postern guest --config /etc/postern/guest.yaml --check
      say what is wrong with the configuration and its policy, and start nothing
  postern guest --config /etc/postern/guest.yaml
      run the agent alone
  postern guest --config /etc/postern/guest.yaml -- /usr/bin/app --port 8443
      run the agent, start the workload once the session is up, pass signals on to it, exit with its code
      (give a workload called status by its path; may be PID 1; 127: no such command, 126: it cannot be run, 1: no session within workload.gateTimeoutSeconds)
  postern guest status --config /etc/postern/guest.yaml --json
      ask a running agent for its session, flows, leases and refusals

A configuration to begin from:
  version: 1
  parent: vsock:3:5000                    # CID 3 on Nitro, 2 elsewhere; unix:PATH for development
  policy: policy.yaml
  sessionKey: /run/postern/session.key
  proxies: {socks5: "127.0.0.1:1080", http: "127.0.0.1:3128"}
  resolvers: ["tls:192.0.2.53#dns.example.net"]   # validated here, asked through the parent
  dns: {listen: "127.0.0.1:53"}           # for programs that know of no proxy; with
  capture: names                          # their flows are taken by name, on a guest with nothing but lo
`;

interface RunOptions {
  readonly config?: string;
  readonly check?: boolean;
}

interface StatusOptions {
  readonly config?: string;
  readonly socket?: string;
  readonly json?: boolean;
}

export function command(): Command {
  const guest = new Command('guest')
    .description('Run the agent in the guest, and a workload behind it.')
    .option('--config <file>', 'the guest’s configuration (docs/configuration.md)')
    .option('--check', 'check the configuration and its policy, start nothing')
    .argument('[command...]', 'the workload and its arguments, behind --')
    .addHelpText('after', EXAMPLES)
    .action((words: string[], options: RunOptions) => run(words, options));
  guest
    .command('status')
    .description('Ask a running agent for its session, flows, leases and refusals.')
    .option('--config <file>', 'the guest’s configuration, which says where the agent listens')
    .option('--socket <path>', 'the agent’s status socket')
    .option('--json', 'print the whole report as JSON')
    .addHelpText('after', '\nExit code 0: the session is up; 1: it is not, or no agent answers.')
    .action((_options: StatusOptions, inner: Command) => status(inner.optsWithGlobals()));
  return guest;
}

async function run(words: readonly string[], { config: file, check }: RunOptions): Promise<void> {
  if (file === undefined)
    throw missing('postern guest: expected --config FILE, found nothing (see postern guest --help)');
  const config = await loadGuestConfig(file);
  if (check) {
    process.stdout.write(`${file}: no problems found\n`);
    return;
  }
  const logger = createLogger('guest', config.log.format, config.log.level);
  configureBulk({ threadCount: config.bulkThreads, log: logger });
  const calls = loadProcessCalls();
  calls.hideMemory();
  // Process 1 gets every orphan of the guest, workload or not.
  const reaper = words.length > 0 || process.pid === 1 ? new Reaper(calls) : undefined;
  // Without a listener Node would open its debugger to whoever sends this signal.
  process.on('SIGUSR1', () => {});
  const key = await loadSessionKey(config.sessionKey);
  const agent = new Agent({
    config,
    key,
    logger,
    name: 'postern-guest',
    reapedCount: () => reaper?.reapedCount ?? 0,
    environment: process.env,
  });
  const stopped = stopSignal();
  await agent.start();
  try {
    const attached = agent.attachVolumes(config.workload.gateTimeoutSeconds * 1000);
    if ((await Promise.race([attached.then(() => 'attached'), stopped])) !== 'attached') {
      attached.catch(() => {});
      if (words.length > 0) process.exitCode = EXIT.failed;
    } else if (words.length === 0) await stopped;
    else {
      if (!config.workload.allowPrivilegeGain) calls.forbidPrivilegeGain();
      process.exitCode = await superviseWorkload(agent, config, words, stopped);
    }
  } finally {
    await agent.close();
  }
  reaper?.close();
}

/** The workload's exit code, or 1 when the gate does not come up in time, or the agent is told to stop before. */
async function superviseWorkload(
  agent: Agent,
  config: GuestConfig,
  words: readonly string[],
  stopped: Promise<void>,
): Promise<number> {
  const { gateTimeoutSeconds } = config.workload;
  try {
    const up = agent.session.ready(gateTimeoutSeconds * 1000);
    const first = await Promise.race([up.then(() => 'up' as const), stopped.then(() => 'stopped' as const)]);
    if (first === 'stopped') {
      up.catch(() => {});
      return EXIT.failed;
    }
  } catch (error) {
    if (!isPosternError(error)) throw error;
    const why = `the gate did not come up in ${gateTimeoutSeconds} s, the workload is not started: ${error.message}`;
    agent.audit.event('error', 'workload.exited', why, { code: error.code });
    return EXIT.failed;
  }
  return runWorkload({
    command: words,
    config: config.workload,
    proxies: agent.proxies,
    environment: withoutKeys(process.env, config.volumes),
    audit: agent.audit,
  });
}

/** Resolves at the first SIGTERM or SIGINT; a second one then ends the process at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    const onSignal = (): void => resolve();
    process.once('SIGTERM', onSignal);
    process.once('SIGINT', onSignal);
  });
}

async function status({ config, socket, json }: StatusOptions): Promise<void> {
  const path = socket ?? (config === undefined ? undefined : (await loadGuestConfig(config)).statusSocket);
  if (path === undefined)
    throw missing('postern guest status: expected --config FILE or --socket PATH, found neither');
  const report = await askStatus(path);
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report));
  if (report.session.phase !== 'up') process.exitCode = EXIT.failed;
}

function missing(message: string): PosternError {
  return new PosternError('ERR_CONFIG_INVALID', message);
}
