import { Command, InvalidArgumentError } from 'commander';
import * as actions from './actions.ts';
import { parseSize } from './config.ts';
import type { FlushMode } from './header.ts';
import type { CommandContext } from './open-access.ts';
import { remove } from './remove.ts';
import { list, withVolume } from './run-action.ts';

const EXAMPLES = `
A volume is a block device of the guest whose every byte outside it is sealed, in immutable objects of a store, with an
anchor that knows the newest state. The guest's own configuration says where each volume is and what opens it; it is part of
what is measured, so nothing of it is guessed. The commands go through the session of the agent that runs in the guest, or
through one of their own. A file of volumes alone does as well:

  version: 1
  volumes:
    - name: data
      store: {kind: relay, parent: "vsock:3:5000", sessionKey: /run/postern/session.key}
      key: {kind: file, path: /run/postern/data.key}        # or env (variable), or passphrase (path)
      anchor: {kind: file, path: /var/lib/postern/anchor}   # development only: the host can turn it back

Store "directory" (path) is a folder of this machine, for development and for work on a volume at rest.

Examples:
  postern volume create data --config volumes.yaml --size 100G
  postern volume status data --config volumes.yaml --json
  postern volume snapshot data before-upgrade --config volumes.yaml
  postern volume restore data before-upgrade --config volumes.yaml --dry-run
  postern volume check data --config volumes.yaml
  postern volume delete data --config volumes.yaml --dry-run

What changes a volume attaches it, which shuts out whoever has it: a volume that was not detached needs --takeover.
Snapshots and growth of a volume that this guest's agent serves are the agent's to do, while it serves it.
With --json there is one JSON document on standard output, and progress as JSON lines on standard error.
Exit code of check: 0 all is well, 1 something is not.`;

export function command(context: CommandContext): Command {
  const volume = new Command('volume')
    .description('Create, look at and look after sealed volumes.')
    .addHelpText('after', EXAMPLES);
  const run = withVolume(context, process.env);
  const sub = (usage: string, description: string): Command =>
    volume
      .command(usage)
      .description(description)
      .requiredOption('--config <file>', 'the volumes’ configuration')
      .option('--json', 'print the result as JSON');
  const attaching = (inner: Command): Command =>
    inner.option('--takeover', 'take the volume over from an instance that did not detach it');

  sub('create <name>', 'Make an empty volume. Nothing else ever does.')
    .requiredOption('--size <size>', 'such as 512M, 100G, 1T', size)
    .option('--mode <mode>', 'when a flush is answered: strict, lazy:MS,COMMITS or none', mode)
    .option('--owner-key <hex>', 'Ed25519 public key whose owner must sign for a restore', ownerKey)
    .addHelpText('after', examples('create data --size 100G', 'create scratch --size 1T --mode lazy:500,16'))
    .action(run(actions.create));
  sub('list', 'The volumes of the configuration, and whether each exists.')
    .addHelpText('after', examples('list', 'list --json'))
    .action(list(context, process.env));
  sub('status <name>', 'What the newest state of a volume is, without attaching it.')
    .addHelpText('after', examples('status data', 'status data --json'))
    .action(run(actions.status));
  attaching(sub('snapshot <name> <snapshot>', 'Keep the volume as it is now under a name.'))
    .option('--delete', 'give that snapshot up instead')
    .option('--dry-run', 'with --delete: say what would be given up, change nothing')
    .addHelpText('after', examples('snapshot data before-upgrade', 'snapshot data before-upgrade --delete'))
    .action(run(actions.snapshot));
  attaching(sub('restore <name> <snapshot>', 'Make a snapshot’s state the volume’s.'))
    .option('--token <file>', 'the owner’s signature, where the volume asks for one')
    .option('--dry-run', 'say what would be restored, change nothing')
    .addHelpText('after', examples('restore data before-upgrade --dry-run', 'restore data before-upgrade'))
    .action(run(actions.restore));
  attaching(sub('resize <name> <size>', 'Make a volume larger, also while the agent serves it.'))
    .addHelpText('after', examples('resize data 200G'))
    .action(run(actions.resize));
  sub('check <name>', 'Read and verify every reachable byte; say what nothing refers to.')
    .addHelpText(
      'after',
      `${examples('check data', 'check data --json')}\n\nExit code 1: something is wrong.`,
    )
    .action(run(actions.check));
  attaching(sub('gc <name>', 'Rewrite what is sparse, delete what is dead and what crashes left behind.'))
    .option('--dry-run', 'say what would be deleted, delete nothing')
    .addHelpText('after', examples('gc data --dry-run', 'gc data'))
    .action(run(actions.gc));
  attaching(sub('rekey <name>', 'Seal everything under new keys and destroy the old ones.'))
    .option('--dry-run', 'say what would be sealed anew and which keys destroyed, change nothing')
    .addHelpText('after', examples('rekey data --dry-run', 'rekey data'))
    .action(run(actions.rekeyed));
  sub('delete <name>', 'Delete every object of a volume, its keys first.')
    .option('--dry-run', 'say what would be deleted, delete nothing')
    .option('--yes', 'it is really meant')
    .option('--takeover', 'also one that was not detached, or cannot be opened: whoever has it is shut out')
    .addHelpText('after', examples('delete data --dry-run', 'delete data --yes'))
    .action(run(remove));
  return volume;
}

function examples(...words: string[]): string {
  const lines = words.map((line) => `  postern volume ${line} --config volumes.yaml`);
  return `\nExamples:\n${lines.join('\n')}`;
}

function size(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw new InvalidArgumentError('expected a size such as 512M, 100G or 1T');
  return bytes;
}

function mode(text: string): FlushMode {
  if (text === 'strict' || text === 'none') return { kind: text };
  const [, maxMs, maxCommits] = /^lazy:(\d{1,7}),(\d{1,4})$/.exec(text) ?? [];
  if (maxMs !== undefined && Number(maxMs) > 0 && Number(maxCommits) > 0) {
    return { kind: 'lazy', maxMs: Number(maxMs), maxCommits: Number(maxCommits) };
  }
  throw new InvalidArgumentError('expected strict, none, or lazy:MS,COMMITS such as lazy:500,16');
}

function ownerKey(text: string): Buffer {
  if (!/^[0-9a-fA-F]{64}$/.test(text)) throw new InvalidArgumentError('expected 64 hex digits');
  return Buffer.from(text, 'hex');
}
