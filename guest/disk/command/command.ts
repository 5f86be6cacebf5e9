import { Command } from 'commander';
import { type CommandContext, type NamedVolume, withVolume, withVolumes } from './context.ts';
import { type DeleteFlags, deleteVolume } from './delete.ts';
import { check, create, gc, newKeys, resize, restore, snapshot } from './maintain.ts';
import { listVolumes, statusLines, volumeStatus } from './status.ts';

const HELP = `
Volumes are named in the guest's configuration, and these commands run in the guest with the same file: through the session of
the agent that runs there, or through one of their own. What changes a volume needs it detached: stop the agent first. An agent
that crashed leaves it attached; --takeover then goes on (and shuts an agent out that still has it).

Examples:
  postern volume create data --config guest.yaml --size 10GiB
  postern volume status data --config guest.yaml --json
  postern volume check data --config guest.yaml           reads and verifies every byte
  postern volume snapshot data monday --config guest.yaml
  postern volume restore data monday --config guest.yaml --dry-run
  postern volume resize data --config guest.yaml --size 20GiB
  postern volume gc data --config guest.yaml --dry-run
  postern volume delete data --config guest.yaml --yes

Exit codes: 0 done (check: the volume is whole), 1 failed, 2 bad input, nothing was changed.`;

/** Registers `postern volume`. */
export function command(): Command {
  const root = new Command('volume')
    .description('Make, look at and keep the volumes of a guest’s configuration.')
    .addHelpText('after', HELP);
  const all = root
    .command('list')
    .description('every volume of the configuration, and the state of each')
    .action((_flags: object, self: Command) => withVolumes(self, process.env, listVolumes));
  shared(all);
  one(root, 'create', 'make an empty volume, once')
    .requiredOption('--size <size>', 'such as 10GiB')
    .option('--owner-key <file>', 'Ed25519 public key (hex) of whoever must sign for a restore')
    .action(action((volume, context, flags) => create(volume, context, flags as { size: string })));
  one(root, 'status', 'its newest state, without attaching it').action(
    action(async (volume, { print }) => {
      const status = await volumeStatus(volume);
      print(status, statusLines(status));
    }),
  );
  changing(one(root, 'snapshot', 'keep the volume as it is now under a name'), 'snapshot')
    .option('--delete', 'delete that snapshot instead')
    .action(actionOn(snapshot));
  changing(one(root, 'restore', 'make the volume what it was at a snapshot'), 'snapshot')
    .option('--token <file>', 'the owner’s signature (hex), for a volume that has an owner key')
    .action(actionOn(restore));
  one(root, 'resize', 'make the volume larger')
    .requiredOption('--size <size>', 'the new size, such as 20GiB')
    .option('--takeover', 'shut out whoever has it attached')
    .action(action((volume, context, flags) => resize(volume, context, flags as { size: string })));
  one(root, 'check', 'read and verify every reachable byte; best while it is detached').action(action(check));
  changing(one(root, 'gc', 'rewrite what is sparse, delete what nothing needs')).action(action(gc));
  one(root, 'rekey', 'new keys, everything sealed anew, the old keys destroyed')
    .option('--takeover', 'shut out whoever has it attached')
    .action(action(newKeys));
  changing(one(root, 'delete', 'delete every object of the volume; cannot be undone'))
    .option('--yes', 'really')
    .option(
      '--force',
      'also when its state cannot be read, as after a deletion or creation that was cut short',
    )
    .action(action((volume, context, flags) => deleteVolume(volume, context, flags as DeleteFlags)));
  return root;
}

function shared(command: Command): Command {
  return command
    .option('--config <file>', 'the guest’s configuration')
    .option('--json', 'print the result as one JSON object');
}

function one(root: Command, name: string, description: string): Command {
  return shared(
    root.command(name).description(description).argument('<name>', 'a volume of the configuration'),
  );
}

function changing(command: Command, extraArgument?: string): Command {
  if (extraArgument !== undefined) command.argument(`<${extraArgument}>`, 'the name of the snapshot');
  return command
    .option('--takeover', 'shut out whoever has it attached')
    .option('--dry-run', 'say what would be done, and change no data');
}

type Work = (volume: NamedVolume, context: CommandContext, flags: object) => Promise<void>;

function action(work: Work): (name: string, flags: object, self: Command) => Promise<void> {
  return (name, flags, self) =>
    withVolume(self, process.env, name, (volume, context) => work(volume, context, flags));
}

type WorkOn = (volume: NamedVolume, context: CommandContext, extra: string, flags: object) => Promise<void>;

function actionOn(
  work: WorkOn,
): (name: string, extra: string, flags: object, self: Command) => Promise<void> {
  return (name, extra, flags, self) =>
    withVolume(self, process.env, name, (volume, context) => work(volume, context, extra, flags));
}
