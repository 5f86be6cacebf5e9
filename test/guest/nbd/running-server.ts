import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import type { NbdExport } from '../../../guest/nbd/export.ts';
import type { NbdLimits } from '../../../guest/nbd/limits.ts';
import { NbdServer } from '../../../guest/nbd/server.ts';
import { RawClient } from './raw-client.ts';

/** A server of the given exports on a unix socket of its own, and what it logged. */
export class RunningServer {
  readonly server: NbdServer;
  readonly path: string;
  readonly uri: string;
  readonly logged: string[];
  readonly #close: () => Promise<void>;

  private constructor(server: NbdServer, path: string, logged: string[], close: () => Promise<void>) {
    this.server = server;
    this.path = path;
    this.uri = `nbd+unix:///?socket=${path}`;
    this.logged = logged;
    this.#close = close;
  }

  static async start(exports: readonly NbdExport[], limits: Partial<NbdLimits> = {}): Promise<RunningServer> {
    const folder = await mkdtemp(join(tmpdir(), 'postern-nbd-'));
    const path = join(folder, 'nbd.sock');
    const logged: string[] = [];
    const log = pino({ level: 'debug' }, { write: (line: string) => logged.push(line) });
    const server = new NbdServer({ log, limits });
    for (const one of exports) server.add(one);
    const listener = await server.listen(path);
    return new RunningServer(server, path, logged, async () => {
      await listener.close();
      await server.close(1000);
      await rm(folder, { recursive: true });
    });
  }

  connect(): Promise<RawClient> {
    return RawClient.connect(this.path);
  }

  /** Connects and goes through the handshake. */
  async open(name = '', mode: { structured?: boolean; allocation?: boolean } = {}): Promise<RawClient> {
    const client = await this.connect();
    await client.go(name, mode);
    return client;
  }

  close(): Promise<void> {
    return this.#close();
  }
}
