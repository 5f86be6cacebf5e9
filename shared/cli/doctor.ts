import { spawnSync } from 'node:child_process';
import { Command, Option } from 'commander';
import { examine, type Finding, ROLES, type Role } from './checks.ts';
import { EXIT } from './exit.ts';

const HELP = `
Looks at the kernel, the devices, the permissions and the limits of this machine, changes nothing, opens no connection.
With the configuration of a guest also at what its names need: whether the addresses of its DNS server and the ports of captured
names can be bound (they are, for a moment), whether /etc/resolv.conf leads there, which resolvers the parent has to let through,
whether the trust anchor is of a key that signs today, and whether the clock can be right.
✔ is there, ! is missing but not needed for everything, ✖ is missing and needed; each with what to do.

Examples:
  postern doctor                                   everything that this machine offers
  postern doctor --role parent --config parent.yaml
  postern doctor --role guest --config guest.yaml --json

Exit code 1: something needed is missing.`;

const MARKS = { ok: '✔', missing: '!', failed: '✖' } as const;

interface DoctorOptions {
  readonly role?: Role;
  readonly config?: string;
  readonly json?: boolean;
}

export interface DoctorContext {
  /** What a guest's configuration asks of this machine. @throws PosternError ERR_CONFIG_* */
  examineGuest(file: string): Promise<Finding[]>;
}

export function command(context: DoctorContext): Command {
  return new Command('doctor')
    .description('say what this machine lacks and what to do about it')
    .addOption(new Option('--role <role>', 'what this machine is to be').choices([...ROLES]))
    .option('--config <file>', 'check this configuration as well (needs --role)')
    .option('--json', 'print the findings as JSON')
    .addHelpText('after', HELP)
    .action((options: DoctorOptions, self: Command) => run(context, options, self));
}

async function run(
  context: DoctorContext,
  { role, config, json }: DoctorOptions,
  self: Command,
): Promise<void> {
  if (config !== undefined && role === undefined) {
    self.error('error: --config needs --role parent or --role guest, to know what to read it as');
  }
  const findings = examine(role);
  if (config !== undefined && role !== undefined) {
    const checked = checkConfiguration(role, config);
    findings.push(checked);
    if (role === 'guest' && checked.state === 'ok') findings.push(...(await context.examineGuest(config)));
  }
  if (json) process.stdout.write(`${JSON.stringify(findings, null, 2)}\n`);
  else for (const finding of findings) process.stdout.write(`${describe(finding)}\n`);
  const failed = findings.some(({ state }) => state === 'failed');
  process.exitCode = failed ? EXIT.failed : EXIT.ok;
}

function describe({ what, state, detail, advice }: Finding): string {
  const line = `${MARKS[state]} ${what.padEnd(28)} ${detail}`;
  return advice === undefined ? line : `${line}\n  ${''.padEnd(28)} -> ${advice}`;
}

/** By the command that would run it, in a process of its own: neither half is part of this one. */
function checkConfiguration(role: Role, file: string): Finding {
  const program = new URL(`./postern${import.meta.filename.slice(-3)}`, import.meta.url).pathname;
  const { status, stderr } = spawnSync(process.execPath, [program, role, '--config', file, '--check'], {
    encoding: 'utf8',
  });
  const what = `configuration ${file}`;
  if (status === EXIT.ok) return { what, state: 'ok', detail: 'no problems found' };
  return { what, state: 'failed', detail: stderr.trim(), advice: 'mend the lines above' };
}
