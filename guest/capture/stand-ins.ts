import { createServer, type Server, type Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import { FLOWS_MAX } from '../flow/flow-table.ts';
import { listenLoopback } from '../proxy/loopback.ts';

/** Names that have a stand-in at once; past it the one that was asked for longest ago goes. */
export const STAND_INS_MAX = 4_096;
/** Listeners at once, each a descriptor: a sixth of what a large guest's flows take. */
export const LISTENERS_MAX = 4_096;
/** 127.100.0.0/16: far from 127.0.0.1 and from 127.0.0.53, where resolvers of distributions listen. */
const NETWORK = '127.100';
/** Bound once at start to see whether the ports can be had; no name ever gets it. */
const PROBE_INDEX = 1;
const FIRST_INDEX = 2;
const LAST_INDEX = 0xfffe;

export interface StandInsOptions {
  /** The ports on which a name may be dialled. */
  portsOf(name: string): readonly number[];
  /** A flow to the name; the socket is the callee's. */
  onFlow(socket: Socket, name: string, port: number): void;
  readonly maxCount?: number;
  readonly maxListenerCount?: number;
}

interface StandIn {
  readonly index: number;
  readonly servers: Server[];
  /** Resolves when every port is listened on. */
  ready: Promise<void>;
}

/**
 * Addresses of this machine that stand for names: whoever connects there wants that name, whatever its addresses. An
 * address stands for one name while the name has it, and is given to another only after all others of the network
 * were: what an application keeps for too long leads to a refusal, not to somebody else.
 */
export class StandIns {
  readonly #options: StandInsOptions;
  /** In the order in which they were asked for, the longest ago first. */
  readonly #byName = new Map<string, StandIn>();
  readonly #nameByAddress = new Map<string, string>();
  readonly #given: number[] = [];
  #nextIndex = FIRST_INDEX;
  #listenerCount = 0;

  constructor(options: StandInsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#byName.size;
  }

  get listenerCount(): number {
    return this.#listenerCount;
  }

  nameAt(address: string): string | undefined {
    return this.#nameByAddress.get(address);
  }

  /**
   * Binds each port once and lets go of it, so that what cannot work is told at start.
   * @throws PosternError ERR_LISTEN_FAILED
   */
  async probe(ports: readonly number[]): Promise<void> {
    for (const port of ports) {
      const server = createServer();
      await listenLoopback(server, { host: addressOf(PROBE_INDEX), port });
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /**
   * The name's address, listened on before it is given out.
   * @throws PosternError ERR_LISTEN_FAILED, ERR_FLOW_LIMIT
   */
  async addressFor(name: string): Promise<string> {
    const standIn = this.#byName.get(name) ?? this.#make(name);
    this.#byName.delete(name);
    this.#byName.set(name, standIn);
    await standIn.ready;
    return addressOf(standIn.index);
  }

  close(): void {
    for (const name of [...this.#byName.keys()]) this.#remove(name);
  }

  #make(name: string): StandIn {
    const ports = this.#options.portsOf(name);
    this.#makeRoom(ports.length);
    const index = this.#takeIndex();
    const servers = ports.map((port) => this.#server(name, port));
    const standIn: StandIn = { index, servers, ready: Promise.resolve() };
    this.#byName.set(name, standIn);
    this.#nameByAddress.set(addressOf(index), name);
    this.#listenerCount += servers.length;
    standIn.ready = this.#listen(standIn, ports, name).catch((error: unknown) => {
      if (this.#byName.get(name) === standIn) this.#remove(name);
      else closeAll(servers);
      throw error;
    });
    return standIn;
  }

  async #listen(standIn: StandIn, ports: readonly number[], name: string): Promise<void> {
    const host = addressOf(standIn.index);
    const bound = standIn.servers.map((server, at) => listenLoopback(server, { host, port: ports[at] ?? 0 }));
    // All, so that none begins to listen behind the back of who closes them.
    const failed = (await Promise.allSettled(bound)).find((result) => result.status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
    if (this.#byName.get(name) !== standIn)
      throw new PosternError(
        'ERR_FLOW_LIMIT',
        `more names at once than ${STAND_INS_MAX}, or ports than ${LISTENERS_MAX}`,
      );
  }

  #server(name: string, port: number): Server {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      this.#options.onFlow(socket, name, port),
    );
    server.maxConnections = FLOWS_MAX;
    return server;
  }

  #makeRoom(portCount: number): void {
    const { maxCount = STAND_INS_MAX, maxListenerCount = LISTENERS_MAX } = this.#options;
    for (const name of this.#byName.keys()) {
      if (this.#byName.size < maxCount && this.#listenerCount + portCount <= maxListenerCount) return;
      this.#remove(name);
    }
  }

  /** Fresh ones first, then those that were given up longest ago. */
  #takeIndex(): number {
    if (this.#nextIndex <= LAST_INDEX) {
      this.#nextIndex += 1;
      return this.#nextIndex - 1;
    }
    const index = this.#given.shift();
    if (index === undefined) throw new Error('more stand-ins than addresses');
    return index;
  }

  /** Flows that live go on. */
  #remove(name: string): void {
    const standIn = this.#byName.get(name);
    if (standIn === undefined) return;
    this.#byName.delete(name);
    this.#nameByAddress.delete(addressOf(standIn.index));
    this.#given.push(standIn.index);
    this.#listenerCount -= standIn.servers.length;
    closeAll(standIn.servers);
  }
}

/** One that does not listen says so to its callback, and that is known. */
function closeAll(servers: readonly Server[]): void {
  for (const server of servers) server.close(() => {});
}

function addressOf(index: number): string {
  return `${NETWORK}.${index >> 8}.${index & 0xff}`;
}
