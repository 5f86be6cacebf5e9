import type { BoundListener } from './accept.ts';
import { LISTEN_BACKLOG } from './accept.ts';
import type { Peer, TransportAddress } from './address.ts';
import { errnoOf } from './failure.ts';
import type { PipeHandle } from './native/handle.ts';
import {
  AF_VSOCK,
  bindSocket,
  closeDescriptor,
  listenSocket,
  openSocket,
  peerAddress,
} from './native/libc.ts';
import { connectSocket } from './socket.ts';
import { streamOver } from './stream.ts';
import type { Stream } from './transport.ts';

type VsockAddress = Extract<TransportAddress, { kind: 'vsock' }>;
type VsockPeer = Extract<Peer, { kind: 'vsock' }>;

/** sockaddr_vm of linux/vm_sockets.h: family u16, reserved u16, port u32, cid u32, flags u8, three zeros. */
const ADDRESS_BYTES = 16;
const PORT_OFFSET = 4;
const CID_OFFSET = 8;

export async function connectVsock(address: VsockAddress, signal: AbortSignal): Promise<Stream> {
  const handle = await connectSocket(AF_VSOCK, vsockAddress(address), signal);
  // A peer that has closed already leaves no name to read; whom we asked for is then all there is to say.
  return streamOver(handle, vsockPeerOf(handle) ?? address);
}

export async function bindVsock(address: VsockAddress): Promise<BoundListener> {
  const fd = openSocket(AF_VSOCK);
  try {
    bindSocket(fd, vsockAddress(address));
    listenSocket(fd, LISTEN_BACKLOG);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  return { fd, release: async () => closeDescriptor(fd) };
}

/** Who is at the other end, by the kernel's word. */
export function vsockPeerOf(handle: PipeHandle): VsockPeer | undefined {
  try {
    const name = peerAddress(handle.fd);
    return { kind: 'vsock', cid: name.readUInt32LE(CID_OFFSET), port: name.readUInt32LE(PORT_OFFSET) };
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined;
  }
}

function vsockAddress({ cid, port }: VsockAddress): Buffer {
  const address = Buffer.alloc(ADDRESS_BYTES);
  address.writeUInt16LE(AF_VSOCK);
  address.writeUInt32LE(port, PORT_OFFSET);
  address.writeUInt32LE(cid, CID_OFFSET);
  return address;
}
