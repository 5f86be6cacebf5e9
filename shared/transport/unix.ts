import type { BoundListener } from './accept.ts';
import type { TransportAddress } from './address.ts';
import { AF_UNIX } from './native/libc.ts';
import { connectSocket } from './socket.ts';
import { bindSocketFile, unixSocketAddress } from './socket-file.ts';
import { streamOver } from './stream.ts';
import type { Stream } from './transport.ts';

type UnixAddress = Extract<TransportAddress, { kind: 'unix' }>;

export async function connectUnix({ path }: UnixAddress, signal: AbortSignal): Promise<Stream> {
  return streamOver(await connectSocket(AF_UNIX, unixSocketAddress(path), signal), { kind: 'unix', path });
}

export function bindUnix(address: UnixAddress): Promise<BoundListener> {
  return bindSocketFile(address.path);
}
