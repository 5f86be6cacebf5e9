import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Namespace } from './namespace.ts';

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
  return Namespace.isPermitted('net') ? undefined : 'this kernel or container permits no network namespaces';
}

async function namespaces(): Promise<Stage> {
  const spaces = { guest: new Namespace('net'), parent: new Namespace('net'), world: new Namespace('net') };
  const close = async (): Promise<void> => {
    await Promise.all(Object.values(spaces).map((space) => space.close()));
  };
  try {
    const inside = (party: Party, ...words: string[]): void => {
      const [program = '', ...rest] = spaces[party].enter(words);
      execFileSync(program, rest, { stdio: 'pipe' });
    };
    await Promise.all(Object.values(spaces).map((space) => space.ready()));
    for (const party of ['guest', 'parent', 'world'] as const) inside(party, 'ip', 'link', 'set', 'lo', 'up');
    const worldPid = spaces.world.pid;
    inside('parent', 'ip', 'link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'down0', 'netns', worldPid);
    inside('parent', 'ip', 'address', 'add', `${PARENT_ADDRESS}/24`, 'dev', 'up0');
    inside('parent', 'ip', 'link', 'set', 'up0', 'up');
    inside('world', 'ip', 'address', 'add', `${GATEWAY_ADDRESS}/24`, 'dev', 'down0');
    inside('world', 'ip', 'link', 'set', 'down0', 'up');
    inside('world', 'ip', 'address', 'add', `${WORLD_ADDRESS}/32`, 'dev', 'lo');
    inside('parent', 'ip', 'route', 'add', 'default', 'via', GATEWAY_ADDRESS);
  } catch (error) {
    await close();
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
    command: (party, words) => spaces[party].enter(words),
    close,
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

/** The path of a program of this folder, as a source or built. */
export function programPath(name: string): string {
  const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
  return fileURLToPath(new URL(name + extension, import.meta.url));
}
