import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { EXIT } from '../cli/exit.ts';
import { PosternError } from '../errors.ts';
import { createDemoVolume, type DiskResult, DiskShow } from './disk.ts';
import { type DemoFiles, SERVE_PORT, writeFiles } from './files.ts';
import { PartyProcess } from './party.ts';
import { programPath, type Stage, setStage } from './stage.ts';
import { auditTrail } from './trail.ts';
import { findWay, type Way } from './way.ts';
import type { Attempt } from './workload.ts';

const HELP = `
Starts a parent, a guest with a workload, and a small internet on this machine: the guest in a network namespace with
nothing but lo where you are root, else over unix sockets. Shows what the policy lets out, what it refuses and why,
a client from outside who reaches the workload, the audit trail, and a disk that outlives a kill -9 of the guest
while the parent sees noise. Where you are root and the kernel has nbd, or nbdfuse is installed, a file system is made
on the disk and mounted, where nobody else sees it; elsewhere it says why not, and reads and writes the disk as it is.
Then it stops everything; nothing is left behind.

Example:
  postern demo --json     one JSON object: what was tried, and how it went`;

export function command(): Command {
  return new Command('demo')
    .description('show the whole of it on this machine, in seconds')
    .option('--json', 'print the results as one JSON object')
    .addHelpText('after', HELP)
    .action(async ({ json }: { json?: boolean }) => {
      const results = await demo(json === true ? () => {} : (line) => process.stdout.write(`${line}\n`));
      if (json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
      process.exitCode = results.every(({ ok }) => ok) ? EXIT.ok : EXIT.failed;
    });
}

export interface DemoResult {
  readonly step: Attempt['step'] | 'inbound' | DiskResult['step'];
  readonly target: string;
  readonly result: string;
  /** Whether it went as the policy says. */
  readonly ok: boolean;
}

type Say = (line: string) => void;

async function demo(say: Say): Promise<DemoResult[]> {
  const startedAt = performance.now();
  const stage = await setStage();
  const way = findWay();
  const parties: PartyProcess[] = [];
  const cast: Cast = { stage, way, parties, say, isLeaving: false };
  let files: DemoFiles | undefined;
  let leaving: Promise<void> | undefined;
  const leave = (): Promise<void> => {
    leaving ??= clear();
    return leaving;
  };
  const clear = async (): Promise<void> => {
    cast.isLeaving = true;
    const tell = (error: Error): void => say(`  Not all was cleared away in order: ${error.message}`);
    await cast.disk?.close().catch(tell);
    for (const party of [...parties].reverse()) await party.stop().catch(tell);
    await stage.close().catch(tell);
    if (files !== undefined) rmSync(files.folder, { recursive: true, force: true });
  };
  const interrupted = (): void => void leave().then(() => process.exit(EXIT.failed));
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    say('\nPostern demo: an enclave with no network reaches one server, and nothing else.\n');
    for (const line of stage.description) say(`  ${line}`);
    files = writeFiles(stage, way.kind === 'kernel' ? way.device : undefined);
    if (!files.workloadApart)
      say('  (the workload runs as your own user here; in production it has its own)');
    const results = await perform(cast, files);
    say(
      `\n${results.filter(({ ok }) => ok).length} of ${results.length} as it should be, in ${seconds(startedAt)} s.`,
    );
    return results;
  } finally {
    await leave();
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
    say('Everything is stopped, nothing is left behind.\n');
  }
}

/** Who takes part, and what has to be cleared away in the end. */
interface Cast {
  readonly stage: Stage;
  readonly way: Way;
  readonly parties: PartyProcess[];
  readonly say: Say;
  disk?: DiskShow;
  /** Nobody comes any more, but who the disk needs to be cleared away. */
  isLeaving: boolean;
}

async function perform(cast: Cast, files: DemoFiles): Promise<DemoResult[]> {
  const { stage, way, parties, say } = cast;
  const start = (party: 'guest' | 'parent' | 'world', words: readonly string[]): PartyProcess => {
    if (cast.isLeaving) throw new PosternError('ERR_DEMO_FAILED', 'the demo was interrupted');
    const started = new PartyProcess(party, stage.command(party, [process.execPath, ...words]));
    parties.push(started);
    return started;
  };
  const postern = fileURLToPath(new URL(`../cli/postern${import.meta.filename.slice(-3)}`, import.meta.url));
  const web = String(stage.webPort);
  const worldArguments = [
    stage.worldAddress,
    web,
    String(stage.dnsPort),
    files.certificate,
    files.privateKey,
  ];
  const world = start('world', [programPath('world'), ...worldArguments]);
  const parent = start('parent', [postern, 'parent', '--config', files.parent]);
  await world.line();
  await parent.logged('a line that it serves', (line) =>
    line.includes('"demo"') || line.includes('serv') ? line : undefined,
  );
  await createDemoVolume((...words) => start('guest', [postern, ...words]), files);
  const workload = [process.execPath, programPath('workload'), stage.worldAddress, web, String(SERVE_PORT)];
  const guest = start('guest', [postern, 'guest', '--config', files.guest, '--', ...workload]);
  const results: DemoResult[] = [];
  const add = (attempt: Omit<DemoResult, 'ok'>): void => {
    const result = { ...attempt, ok: asExpected(attempt) };
    results.push(result);
    say(describe(result));
  };
  say('');
  for (;;) {
    const attempt = JSON.parse(await guest.line()) as Attempt;
    if (attempt.step === 'serving') break;
    add(attempt);
  }
  const client = start('world', [programPath('client'), `http://${stage.forwardAddress}/`]);
  add({ step: 'inbound', target: `http://${stage.forwardAddress}/`, result: await client.line() });
  await guest.logged('the inbound flow in its log', (line) => (line.includes('8080') ? line : undefined));
  say('\nThe audit trail:');
  for (const line of auditTrail({ guest: guest.log, parent: parent.log })) say(`  ${line}`);
  await guest.stop();
  cast.disk = new DiskShow({
    way,
    files,
    start: (...words) => startDiskGuest(cast, [postern, ...words]),
    say,
    add,
  });
  await cast.disk.show();
  return results;
}

/** The kernel's nbd takes orders from its first network namespace only: the agent that makes a device stands there. */
function startDiskGuest({ stage, way, parties }: Cast, words: readonly string[]): PartyProcess {
  const command = [process.execPath, ...words];
  const guest = new PartyProcess('guest', way.kind === 'kernel' ? command : stage.command('guest', command));
  parties.push(guest);
  return guest;
}

const EXPECTED: Record<DemoResult['step'], RegExp> = {
  allowed: /^200 hello from the internet/,
  refused: /^403 .*postern/,
  direct: /^(ENETUNREACH|connected)$/,
  serving: /^$/,
  inbound: /^200 hello from inside the enclave/,
  disk: /written and (flushed|synced)$/,
  crash: /^the same /,
  noise: /^noise: /,
};
const TITLES: Record<DemoResult['step'], string> = {
  allowed: 'allowed  ',
  refused: 'refused  ',
  direct: 'direct   ',
  serving: '',
  inbound: 'inbound  ',
  disk: 'disk     ',
  crash: 'crash    ',
  noise: 'noise    ',
};

function asExpected({ step, result }: Omit<DemoResult, 'ok'>): boolean {
  return EXPECTED[step].test(result);
}

function describe({ step, target, result, ok }: DemoResult): string {
  return `  ${ok ? '✔' : '✖ NOT AS EXPECTED:'} ${TITLES[step]} ${target.padEnd(34)} ${result}`;
}

function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(1);
}
