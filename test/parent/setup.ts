import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { stringify } from 'yaml';
import { parseParentConfig } from '../../parent/config/config.ts';
import { Parent } from '../../parent/parent.ts';
import { startFlow } from '../../shared/flow/splice.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';

export interface Started {
  readonly parent: Parent;
  readonly folder: string;
  /** What was logged, oldest first. */
  readonly lines: readonly Record<string, unknown>[];
  /** Where this guest registers. */
  tunnel(guest: string): TransportAddress;
  /** The configuration that was started with, `changes` laid over its top level. */
  config(changes?: Record<string, unknown>): ReturnType<typeof parseParentConfig>;
  /** A new parent with the same configuration and state; the old one must be closed. */
  restart(): Promise<Started>;
}

/** Loopback, named, which is where the tests' servers are. */
export const LOOPBACK = {
  allow: [
    { cidr: '127.0.0.0/8', ports: '1-65535' },
    { ip: '::1', ports: '1-65535' },
  ],
};

/** Guests by name with what differs from the usual; each has its own unix socket and may reach loopback. */
export type TestGuests = Record<string, Record<string, unknown>>;

/** Starts a parent that ends with the test. */
export async function startParent(
  t: TestContext,
  guests: TestGuests = { web: {} },
  top: (folder: string) => Record<string, unknown> = () => ({}),
): Promise<Started> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-parent-'));
  t.after(() => rm(folder, { recursive: true }));
  return startIn(t, folder, guests, top(folder));
}

async function startIn(
  t: TestContext,
  folder: string,
  guests: TestGuests,
  top: Record<string, unknown>,
): Promise<Started> {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const config = (changes: Record<string, unknown> = {}) =>
    parseParentConfig(stringify({ ...usual(folder, guests), ...top, ...changes }), 'test.yaml');
  const parent = await Parent.start(config(), { log, version: 'test', startFlow });
  t.after(() => parent.close());
  return {
    parent,
    folder,
    lines,
    config,
    tunnel: (guest) => ({ kind: 'unix', path: join(folder, guest) }),
    restart: () => startIn(t, folder, guests, top),
  };
}

export function usual(folder: string, guests: TestGuests): Record<string, unknown> {
  const entries = Object.entries(guests).map(([name, changes]) => [name, usualGuest(folder, name, changes)]);
  return {
    version: 1,
    state: join(folder, 'state'),
    admin: '127.0.0.1:0',
    drainTimeoutMs: 1000,
    guests: Object.fromEntries(entries),
  };
}

export function usualGuest(folder: string, name: string, changes: Record<string, unknown> = {}) {
  return { listen: `unix:${join(folder, name)}`, egress: LOOPBACK, ...changes };
}

/** Where a listener of the parent is, as port of 127.0.0.1. */
export function portOf({ parent }: Started, path: string): number {
  return Number(/:(\d+)$/.exec(parent.whereIs(path) ?? '')?.[1]);
}

/** A TCP server on loopback that ends with the test. */
export async function tcpServer(t: TestContext, onClient: (client: Socket) => void): Promise<number> {
  const clients = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true }, (client) => {
    clients.add(client);
    client.on('error', () => {}).on('close', () => clients.delete(client));
    onClient(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    for (const client of clients) client.destroy();
  });
  return (server.address() as AddressInfo).port;
}

/** Waits for what happens soon without an event of its own. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let waited = 0; waited < 1000; waited += 1) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`never: ${what}`);
}
