import { acceptOn, type BoundListener, type PeerOf } from './accept.ts';
import type { TransportAddress } from './address.ts';
import { withinDeadline } from './deadline.ts';
import { transportFailure } from './failure.ts';
import { bindHybrid, connectHybrid } from './hybrid.ts';
import { requireTransport } from './self-test.ts';
import type { ConnectOptions, Listener, OnStream, Stream } from './transport.ts';
import { bindUnix, connectUnix } from './unix.ts';
import { bindVsock, connectVsock, vsockPeerOf } from './vsock.ts';

/**
 * Connects to whoever listens at the address. The caller owns the stream and attaches its `error` handler at once.
 * @throws PosternError ERR_TRANSPORT_*
 */
export async function connectStream(
  address: TransportAddress,
  options: ConnectOptions = {},
): Promise<Stream> {
  await requireTransport();
  try {
    return await withinDeadline(address, options, (signal) => connectOnce(address, signal));
  } catch (error) {
    throw transportFailure(error, address);
  }
}

/**
 * Listens at the address and accepts. `onStream` owns each stream that it is given and attaches its `error` handler
 * before it returns; when it throws, that stream is destroyed, the exception is the process's, and the listener
 * goes on. @throws PosternError ERR_TRANSPORT_*
 */
export async function listenStream(address: TransportAddress, onStream: OnStream): Promise<Listener> {
  const bound = await bindListener(address);
  const listener = await acceptOrRelease(bound, address, onStream);
  let closed: Promise<void> | undefined;
  const close = () => {
    closed ??= bound.release().then(() => listener.close());
    return closed;
  };
  return { address, close };
}

/**
 * The first half of `listenStream`: a listening descriptor that several threads of this process then accept on.
 * @throws PosternError ERR_TRANSPORT_*
 */
export async function bindListener(address: TransportAddress): Promise<BoundListener> {
  await requireTransport();
  try {
    return await bindOnce(address);
  } catch (error) {
    throw transportFailure(error, address);
  }
}

/**
 * The second half: accepts on a duplicate of `fd`, in this thread. The kernel spreads the streams over all threads that
 * do so. Closing the listener stops this thread only.
 */
export function acceptStreams(fd: number, address: TransportAddress, onStream: OnStream): Listener {
  const peerOf: PeerOf =
    address.kind === 'vsock' ? vsockPeerOf : () => ({ kind: address.kind, path: address.path });
  return acceptOn(fd, address, peerOf, onStream);
}

async function acceptOrRelease(
  bound: BoundListener,
  address: TransportAddress,
  onStream: OnStream,
): Promise<Listener> {
  try {
    return acceptStreams(bound.fd, address, onStream);
  } catch (error) {
    await bound.release();
    throw error;
  }
}

function connectOnce(address: TransportAddress, signal: AbortSignal): Promise<Stream> {
  if (address.kind === 'unix') return connectUnix(address, signal);
  if (address.kind === 'hybrid') return connectHybrid(address, signal);
  return connectVsock(address, signal);
}

function bindOnce(address: TransportAddress): Promise<BoundListener> {
  if (address.kind === 'unix') return bindUnix(address);
  if (address.kind === 'hybrid') return bindHybrid(address);
  return bindVsock(address);
}
