import { Command, Option } from 'commander';
import { EXIT } from '../shared/cli/exit.ts';
import type { LogFormat, LogLevel } from '../shared/log.ts';
import { command as releaseCommand } from './admin/release.ts';
import { type ParentConfig, readParentConfig } from './config/config.ts';

interface ParentFlags {
  readonly config?: string;
  readonly check?: boolean;
  readonly log?: LogFormat;
  readonly logLevel?: LogLevel;
}

const HELP = `
A parent serves the guests of one configuration file. The smallest useful one:

  version: 1
  state: /var/lib/postern            # remembers which session key each guest registered
  listen: vsock:ANY:5000             # where guests that are known by their CID register
  guests:
    web:
      cid: 16
      agent: vsock:16:5001           # where its agent takes inbound streams
      egress:
        allow:
          - {cidr: 0.0.0.0/0, ports: 443}   # or  allow: any  for all but special addresses
      forwards:
        - {listen: 0.0.0.0:8443, to: 443}   # to: the service port of the guest's ingress policy

Signals: SIGHUP reads the file again (a bad one changes nothing and says why); SIGTERM and SIGINT drain for
drainTimeoutMs, a second one ends at once.

Examples:
  postern parent --config parent.yaml --check      every mistake in the file, with its path
  postern parent --config parent.yaml              serve
  postern parent release web                       a guest was rebooted: forget its session key

See docs/configuration.md for every key and its default.`;

export function command(): Command {
  return new Command('parent')
    .description('serve guests from the parent host')
    .option('--config <file>', 'the configuration, YAML or JSON')
    .option('--check', 'only say what is wrong with the configuration')
    .addOption(new Option('--log <format>', 'overrides log.format').choices(['json', 'pretty', 'auto']))
    .addOption(
      new Option('--log-level <level>', 'overrides log.level').choices([
        'debug',
        'info',
        'warn',
        'error',
        'silent',
      ]),
    )
    .addHelpText('after', HELP)
    .addCommand(releaseCommand())
    .action(run);
}

async function run(flags: ParentFlags, self: Command): Promise<void> {
  const file = flags.config;
  if (file === undefined) return self.error("error: required option '--config <file>' not specified");
  const config = await readParentConfig(file);
  if (flags.check === true) {
    const count = Object.keys(config.guests).length;
    process.stdout.write(`${file}: ok, ${count} ${count === 1 ? 'guest' : 'guests'}\n`);
    return;
  }
  const { serve } = await import('./serve.ts');
  process.exitCode = await serve(config, {
    reread: () => readParentConfig(file),
    ...logFlags(config, flags),
  });
  if (process.exitCode === EXIT.ok) process.exit();
}

function logFlags(config: ParentConfig, flags: ParentFlags): { format: LogFormat; level: LogLevel } {
  return { format: flags.log ?? config.log.format, level: flags.logLevel ?? config.log.level };
}
