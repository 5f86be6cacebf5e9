import type { Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import type { Logger } from '../../shared/log.ts';
import { LogRateLimiter } from '../../shared/log.ts';
import { listenStream } from '../../shared/transport/connect.ts';
import type { Listener } from '../../shared/transport/transport.ts';
import { PayloadBudget } from './budget.ts';
import { Connection, type ConnectionEvents } from './connection.ts';
import type { ExportTable, NbdExport } from './export.ts';
import { DEFAULT_LIMITS, MAX_STRING_BYTES, type NbdLimits } from './limits.ts';
import { commandName } from './request.ts';

export interface NbdServerOptions {
  readonly log: Logger;
  readonly limits?: Partial<NbdLimits>;
}

/** Serves block devices to the streams that it is given. It opens nothing itself and closes no device. */
export class NbdServer implements ExportTable {
  readonly #log: Logger;
  readonly #limits: NbdLimits;
  readonly #budget: PayloadBudget;
  readonly #rate = new LogRateLimiter();
  readonly #exports = new Map<string, NbdExport>();
  readonly #connections = new Set<Connection>();
  #closing = false;

  constructor({ log, limits }: NbdServerOptions) {
    this.#log = log;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.#budget = new PayloadBudget(this.#limits);
  }

  /** @throws PosternError ERR_NBD_EXPORT for a name that is taken or too long */
  add(added: NbdExport): void {
    if (this.#exports.has(added.name)) {
      throw new PosternError(
        'ERR_NBD_EXPORT',
        `an export named ${JSON.stringify(added.name)} is served already`,
      );
    }
    if (Buffer.byteLength(added.name) > MAX_STRING_BYTES || added.name.includes('\0')) {
      throw new PosternError(
        'ERR_NBD_EXPORT',
        `an export name is at most ${MAX_STRING_BYTES} bytes, none zero`,
      );
    }
    this.#exports.set(added.name, added);
  }

  /**
   * Serves the export no longer. Its connections, the kernel's included, answer what they have begun and close;
   * whatever is left after `graceMs` is cut. Resolves when no connection uses the device any more.
   */
  async remove(name: string, graceMs: number): Promise<void> {
    this.#exports.delete(name);
    const using = [...this.#connections].filter((connection) => connection.export?.name === name);
    await this.#shutDown(using, graceMs);
  }

  /** As `remove` for every export; streams that come later are refused. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    this.#exports.clear();
    await this.#shutDown([...this.#connections], graceMs);
  }

  /**
   * Serves whoever connects to the unix socket at `path`: this process's user and root, by the file's mode 0600. A
   * dead process's socket file is replaced. Closing the listener leaves the connections alone.
   * @throws PosternError ERR_TRANSPORT_*
   */
  listen(path: string): Promise<Listener> {
    return listenStream({ kind: 'unix', path }, (stream) => this.serve(stream));
  }

  /** Takes the stream over (it is not to be used any more) and speaks the handshake on it. */
  serve(stream: Socket): void {
    this.#open(stream)?.negotiate(this);
  }

  /**
   * Takes the stream over, already in the transmission phase: simple replies, as the kernel's client speaks. Resolves
   * when it is closed, whoever closed it.
   */
  async serveKernel(stream: Socket, served: NbdExport): Promise<void> {
    const connection = this.#open(stream);
    connection?.transmit({ export: served, structured: false, allocation: false });
    await connection?.closed;
  }

  find(name: string): NbdExport | undefined {
    const found = this.#exports.get(name);
    if (found !== undefined || name !== '' || this.#exports.size !== 1) return found;
    return this.#exports.values().next().value;
  }

  list(): Iterable<NbdExport> {
    return this.#exports.values();
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Payload bytes that the connections hold now, and requests of closed ones that the device is not done with. */
  get heldBytes(): number {
    return this.#budget.heldBytes;
  }

  #open(stream: Socket): Connection | undefined {
    if (this.#closing || this.#connections.size >= this.#limits.connections) {
      this.#warn('limit', { limit: this.#limits.connections }, 'connection refused');
      stream.destroy();
      return undefined;
    }
    const connection = new Connection(stream, this.#limits, this.#budget, this.#events);
    this.#connections.add(connection);
    return connection;
  }

  readonly #events: ConnectionEvents = {
    closed: (connection) => {
      this.#connections.delete(connection);
    },
    violation: (connection, text) => {
      this.#warn(`violation ${text}`, { export: connection.export?.name, text }, 'NBD client cut off');
    },
    failed: (connection, { type, offset, length }, failure) => {
      const fields = { export: connection.export?.name, command: commandName(type), offset, length };
      this.#warn(failure.code, { ...fields, code: failure.code, err: failure }, 'NBD request failed');
    },
  };

  async #shutDown(connections: readonly Connection[], graceMs: number): Promise<void> {
    for (const connection of connections) connection.shutDown();
    const cut = setTimeout(() => {
      for (const connection of connections) connection.destroy();
    }, graceMs);
    await Promise.all(connections.map((connection) => connection.closed));
    clearTimeout(cut);
  }

  #warn(key: string, fields: object, message: string): void {
    const suppressed = this.#rate.allow(key);
    if (suppressed !== undefined) this.#log.warn({ ...fields, suppressed }, message);
  }
}
