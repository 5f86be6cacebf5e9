#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { isPosternError } from '../errors.ts';
import type { ObjectStore } from '../objects/store.ts';
import type { Finding } from './checks.ts';
import { EXIT } from './exit.ts';

/**
 * The program's subcommands and the module of each. This is the one place that knows both halves, and only by
 * file name: a computed import keeps `parent/` and `guest/` out of this project's references, and a command that
 * is not run is not loaded.
 */
const COMMANDS: Record<string, { readonly summary: string; readonly module: string }> = {
  demo: { summary: 'show the whole of it on this machine, in seconds', module: '../demo/command' },
  parent: { summary: 'serve guests from the parent host', module: '../../parent/command' },
  guest: { summary: 'run the agent in the guest, and a workload behind it', module: '../../guest/command' },
  resolve: {
    summary: 'resolve a name and prove the answer, or say why it cannot be proven',
    module: '../../guest/dns/resolve-command',
  },
  volume: { summary: 'create, look at and look after sealed volumes', module: '../../guest/volume/command' },
  policy: { summary: 'check a policy, or explain what it decides', module: '../policy/command' },
  doctor: { summary: 'say what this machine lacks and what to do about it', module: './doctor' },
};

/** What a command may need of the other half, without importing it. */
export interface CommandContext {
  /** A folder of this machine as an object store: the parent's code, for volumes at rest and for development. */
  openDirectory(path: string): Promise<ObjectStore>;
  /** What a guest's configuration asks of this machine. @throws PosternError ERR_CONFIG_* */
  examineGuest(file: string): Promise<Finding[]>;
}

/** What every module in COMMANDS exports. */
export interface CommandModule {
  command(context: CommandContext): Command;
}

const CONTEXT: CommandContext = {
  async openDirectory(path) {
    const directory = await importModule<{ openDirectoryStore(path: string): Promise<ObjectStore> }>(
      '../../parent/objects/directory',
    );
    return directory.openDirectoryStore(path);
  },
  async examineGuest(file) {
    const doctor = await importModule<{ examineGuest(file: string): Promise<Finding[]> }>(
      '../../guest/doctor/examine',
    );
    return doctor.examineGuest(file);
  },
};

async function main(argv: readonly string[]): Promise<void> {
  const program = new Command('postern')
    .description(
      'A network and a disk for an enclave, through a parent that is trusted for nothing but uptime.',
    )
    .version(await version(), '-V, --version')
    .showHelpAfterError('(postern --help lists the commands)')
    .addHelpText('after', `\nExit codes: 0 done or yes, 1 failed or no, 2 bad input, nothing was started.`)
    .exitOverride();
  const name = argv[0] ?? '';
  for (const [commandName, { summary }] of Object.entries(COMMANDS)) {
    if (commandName === name) program.addCommand((await load(commandName)).command(CONTEXT));
    else program.command(commandName).summary(summary).description(summary);
  }
  for (const command of program.commands) overrideExit(command);
  if (argv.length === 0) {
    program.outputHelp();
    return;
  }
  await program.parseAsync(argv, { from: 'user' });
}

function overrideExit(command: Command): void {
  command.exitOverride();
  for (const inner of command.commands) overrideExit(inner);
}

async function load(name: string): Promise<CommandModule> {
  return importModule(COMMANDS[name]?.module ?? '');
}

async function importModule<T>(path: string): Promise<T> {
  const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
  return import(new URL(path + extension, import.meta.url).href);
}

async function version(): Promise<string> {
  const { readFile } = await import('node:fs/promises');
  // The sources are two folders below package.json, the built files three.
  for (const up of ['../../package.json', '../../../package.json']) {
    const text = await readFile(new URL(up, import.meta.url), 'utf8').catch(() => undefined);
    if (text !== undefined) return (JSON.parse(text) as { version: string }).version;
  }
  return 'unknown';
}

// A reader that has seen enough (`postern … | head`) closes its end: that is no failure of ours.
let isReaderGone = false;
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  if (isReaderGone) return;
  isReaderGone = true;
  // Who has something to clear away does it as for a signal.
  if (!process.emit('SIGTERM')) process.exit();
});

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof CommanderError) {
    // commander has printed its message; help and version come here too, with exit code 0.
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.badInput;
  } else if (isPosternError(error)) {
    process.stderr.write(`postern: ${error.code}\n${error.message}\n`);
    const badInput =
      error.code.startsWith('ERR_CONFIG_') ||
      error.code === 'ERR_ADDRESS_INVALID' ||
      error.code === 'ERR_DNS_NAME';
    process.exitCode = badInput ? EXIT.badInput : EXIT.failed;
  } else {
    throw error;
  }
}
