import { PosternError } from '../errors.ts';
import type { TransportAddress } from './address.ts';
import type { ConnectOptions, Listener, OnStream, Stream } from './transport.ts';
import { connectUnix, listenUnix } from './unix.ts';

/**
 * Connects to whoever listens at the address. The stream is half-open capable from its first byte.
 * @throws PosternError ERR_TRANSPORT_*
 */
export function connectStream(address: TransportAddress, options: ConnectOptions = {}): Promise<Stream> {
  if (address.kind === 'unix') return connectUnix(address, options);
  throw new PosternError('ERR_TRANSPORT_UNSUPPORTED', address.kind);
}

/**
 * Listens at the address; `onStream` owns each stream that it is given, and attaches its `error` handler before it
 * returns. @throws PosternError ERR_TRANSPORT_*
 */
export async function listenStream(address: TransportAddress, onStream: OnStream): Promise<Listener> {
  if (address.kind === 'unix') return listenUnix(address, onStream);
  throw new PosternError('ERR_TRANSPORT_UNSUPPORTED', address.kind);
}
