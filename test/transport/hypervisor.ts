import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';

/** First host-side port that the stand-in hands out, as Firecracker does. */
const FIRST_HOST_PORT = 1 << 30;

/**
 * Plays a microVM hypervisor for the tests: the host sees `host.sock` (and `host.sock_PORT` for streams that the
 * guest opens); the "guest" listens at `guest_PORT.sock` and dials `dial_PORT.sock` in the same folder.
 */
export class Hypervisor {
  readonly #folder: string;
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  #nextHostPort = FIRST_HOST_PORT;

  constructor(folder: string) {
    this.#folder = folder;
  }

  get hostPath(): string {
    return join(this.#folder, 'host.sock');
  }

  guestListenPath(port: number): string {
    return join(this.#folder, `guest_${port}.sock`);
  }

  guestDialPath(port: number): string {
    return join(this.#folder, `dial_${port}.sock`);
  }

  /** Serves what the host opens. */
  async start(): Promise<void> {
    await this.#listen(this.hostPath, (host) => this.#onHost(host));
  }

  /** Lets the guest dial `port` of the host. */
  async openDial(port: number): Promise<void> {
    await this.#listen(this.guestDialPath(port), (guest) => {
      splice(guest, connect({ path: `${this.hostPath}_${port}`, allowHalfOpen: true }));
    });
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))));
  }

  #listen(path: string, onSocket: (socket: Socket) => void): Promise<void> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      this.#sockets.add(socket.on('close', () => this.#sockets.delete(socket)));
      onSocket(socket);
    });
    this.#servers.push(server);
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ path, backlog: 4096 }, resolve);
    });
  }

  #onHost(host: Socket): void {
    let line = '';
    host.on('error', () => host.destroy());
    const onData = (piece: Buffer) => {
      line += piece.toString('latin1');
      const end = line.indexOf('\n');
      if (end === -1) return;
      host.off('data', onData).pause();
      const rest = Buffer.from(line.slice(end + 1), 'latin1');
      if (rest.length > 0) host.unshift(rest);
      this.#connectGuest(host, Number(/^CONNECT (\d+)$/.exec(line.slice(0, end))?.[1]));
    };
    host.on('data', onData);
    host.resume();
  }

  #connectGuest(host: Socket, port: number): void {
    const guest = connect({ path: this.guestListenPath(port), allowHalfOpen: true });
    guest.once('error', () => host.destroy());
    guest.once('connect', () => {
      host.write(`OK ${this.#nextHostPort++}\n`);
      splice(host, guest);
    });
  }
}

/** Both ways, half-close included; a side that is gone takes the other with it. */
function splice(left: Socket, right: Socket): void {
  for (const [from, to] of [
    [left, right],
    [right, left],
  ] as const) {
    from.on('error', () => to.destroy());
    from.on('close', () => to.destroy());
    from.pipe(to);
  }
}
