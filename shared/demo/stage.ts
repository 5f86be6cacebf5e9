import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** Where the demo's parties stand and under which addresses they know each other. */
export interface Stage {
  /** What the person should know about how real this is. */
  readonly description: readonly string[];
  /** The address of the stand-in for the internet: a web server and a name server. */
  readonly worldAddress: string;
  readonly webPort: number;
  readonly dnsPort: number;
  /** Where the parent takes clients for the guest. */
  readonly forwardAddress: string;
  /** The command that runs a program where the party stands. */
  command(party: Party, words: readonly string[]): readonly string[];
  close(): Promise<void>;
}

export type Party = 'guest' | 'parent' | 'world';

const PARENT_ADDRESS = '198.51.100.2';
const GATEWAY_ADDRESS = '198.51.100.1';
const WORLD_ADDRESS = '203.0.113.10';

/** Three network namespaces where that is possible, else one machine with loopback between all parties. */
export async function setStage(): Promise<Stage> {
  const missing = whyNoNamespaces();
  return missing === undefined ? namespaces() : loopback(missing);
}

function whyNoNamespaces(): string | undefined {
  if (process.getuid?.() !== 0) return 'you are not root';
  for (const program of ['ip', 'unshare', 'nsenter']) {
    if (spawnSync(program, ['--version']).error !== undefined) {
      return `${program} is not installed (apt-get install iproute2 util-linux)`;
    }
  }
  const tried = spawnSync('unshare', ['--net', 'true']);
  return tried.status === 0 ? undefined : 'this kernel or container permits no network namespaces';
}

/**
 * A namespace without a name lives as long as a process is in it: `cat` holds each one until its input ends, which
 * it does even when the demo is killed. So nothing is left behind.
 */
async function namespaces(): Promise<Stage> {
  const holders = { guest: hold(), parent: hold(), world: hold() };
  try {
    await Promise.all(Object.values(holders).map((holder) => once(holder, 'spawn')));
    const inside = (party: Party, ...words: string[]): void => {
      const [program = '', ...rest] = enter(holders[party], words);
      execFileSync(program, rest, { stdio: 'pipe' });
    };
    await Promise.all(Object.values(holders).map(isApart));
    for (const party of ['guest', 'parent', 'world'] as const) inside(party, 'ip', 'link', 'set', 'lo', 'up');
    const worldPid = String(holders.world.pid);
    inside('parent', 'ip', 'link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'down0', 'netns', worldPid);
    inside('parent', 'ip', 'address', 'add', `${PARENT_ADDRESS}/24`, 'dev', 'up0');
    inside('parent', 'ip', 'link', 'set', 'up0', 'up');
    inside('world', 'ip', 'address', 'add', `${GATEWAY_ADDRESS}/24`, 'dev', 'down0');
    inside('world', 'ip', 'link', 'set', 'down0', 'up');
    inside('world', 'ip', 'address', 'add', `${WORLD_ADDRESS}/32`, 'dev', 'lo');
    inside('parent', 'ip', 'route', 'add', 'default', 'via', GATEWAY_ADDRESS);
  } catch (error) {
    await release(Object.values(holders));
    throw error;
  }
  return {
    description: [
      'guest    a network namespace with nothing but lo: no interface, no route',
      `parent   a network namespace at ${PARENT_ADDRESS}; a unix socket stands in for the vsock cable`,
      `world    a web server and a name server at ${WORLD_ADDRESS}, behind a router`,
    ],
    worldAddress: WORLD_ADDRESS,
    webPort: 443,
    dnsPort: 53,
    forwardAddress: `${PARENT_ADDRESS}:8080`,
    command: (party, words) => enter(holders[party], words),
    close: () => release(Object.values(holders)),
  };
}

function loopback(missing: string): Stage {
  return {
    description: [
      `Without network namespaces (${missing}) the guest only pretends: all parties share 127.0.0.1, and the`,
      'guest could reach the world by itself. The gate, the policy and the refusals are the real ones.',
    ],
    worldAddress: '127.0.0.1',
    webPort: 48443,
    dnsPort: 48053,
    forwardAddress: '127.0.0.1:48080',
    command: (_party, words) => words,
    close: () => Promise.resolve(),
  };
}

function hold(): ChildProcess {
  return spawn('unshare', ['--net', 'cat'], { stdio: ['pipe', 'ignore', 'ignore'] });
}

/** `unshare` is a process before it has unshared: wait until its namespace is another than ours. */
async function isApart(holder: ChildProcess): Promise<void> {
  const { readlink } = await import('node:fs/promises');
  const ours = await readlink('/proc/self/ns/net');
  for (let tries = 0; tries < 500; tries += 1) {
    if ((await readlink(`/proc/${holder.pid}/ns/net`)) !== ours) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('unshare --net made no namespace within 5 s');
}

function enter(holder: ChildProcess, words: readonly string[]): readonly string[] {
  return ['nsenter', `--net=/proc/${holder.pid}/ns/net`, ...words];
}

async function release(holders: readonly ChildProcess[]): Promise<void> {
  await Promise.all(
    holders.map(async (holder) => {
      if (holder.exitCode !== null || holder.signalCode !== null) return;
      const gone = once(holder, 'exit');
      holder.stdin?.end();
      await gone;
    }),
  );
}

/** The path of a program of this folder, as a source or built. */
export function programPath(name: string): string {
  const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
  return fileURLToPath(new URL(name + extension, import.meta.url));
}
