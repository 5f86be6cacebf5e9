import type { Socket } from 'node:net';
import { PosternError } from '../shared/errors.ts';
import { formatTransportAddress, type TransportAddress } from '../shared/transport/address.ts';
import { listenStream } from '../shared/transport/connect.ts';
import type { OnStream, Stream } from '../shared/transport/transport.ts';
import { type AdminRoutes, listenAdmin } from './admin/server.ts';
import type { ParentConfig } from './config/config.ts';
import type { Listening, WantedListener } from './listeners.ts';
import { ADMIN_KEY, CID_KEY, type ForwardRoute, type Routes, socketKey } from './routes.ts';
import { formatTcpAddress } from './tcp/address.ts';
import { listenTcp, type TcpListener } from './tcp/listen.ts';

/** Who takes what a listener accepts; a listener that outlives a reload is told apart by its key. */
export interface Acceptors {
  acceptByCid(stream: Stream): void;
  acceptBySocket(key: string, stream: Stream): void;
  acceptClient(key: string, client: Socket): void;
  acceptFailed(key: string, error: Error): void;
}

/** Every listener that a configuration asks for. Failures to open one name its path in the configuration. */
export function wantedListeners(
  config: ParentConfig,
  routes: Routes,
  acceptors: Acceptors,
  adminRoutes: AdminRoutes,
): WantedListener[] {
  const wanted: WantedListener[] = [];
  const { admin, listen } = config;
  if (listen !== undefined) {
    wanted.push(tunnel(CID_KEY, 'listen', listen, (stream) => acceptors.acceptByCid(stream)));
  }
  for (const [name, { listen: own }] of Object.entries(config.guests)) {
    if (own === undefined) continue;
    const key = socketKey(formatTransportAddress(own));
    const onStream: OnStream = (stream) => acceptors.acceptBySocket(key, stream);
    wanted.push(tunnel(key, `guests.${name}.listen`, own, onStream));
  }
  for (const [key, route] of routes.forwards) wanted.push(forward(key, route, acceptors));
  if (admin !== 'off') {
    wanted.push({ key: ADMIN_KEY, open: async () => listening(await listenAdmin(admin, adminRoutes)) });
  }
  return wanted;
}

function tunnel(key: string, path: string, address: TransportAddress, onStream: OnStream): WantedListener {
  const open = async (): Promise<Listening> => {
    try {
      const listener = await listenStream(address, onStream);
      return { where: formatTransportAddress(listener.address), close: () => listener.close() };
    } catch (error) {
      if (!(error instanceof PosternError)) throw error;
      throw new PosternError(error.code, `${path}: ${error.message}`, { cause: error });
    }
  };
  return { key, open };
}

function forward(key: string, { forward, path, guest }: ForwardRoute, acceptors: Acceptors): WantedListener {
  const purpose = `${path} (guest ${guest.name})`;
  const onClient = (client: Socket): void => acceptors.acceptClient(key, client);
  const onError = (error: Error): void => acceptors.acceptFailed(key, error);
  return { key, open: async () => listening(await listenTcp(forward.listen, purpose, onClient, onError)) };
}

function listening(listener: TcpListener): Listening {
  return { where: formatTcpAddress(listener.address), close: () => listener.close() };
}
