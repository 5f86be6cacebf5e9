import { PosternError } from '../errors.ts';
import { adoptListener, adoptStream, type PipeHandle } from './native/handle.ts';
import {
  AF_UNIX,
  bindSocket,
  closeDescriptor,
  listenSocket,
  localAddress,
  openSocket,
  startConnect,
} from './native/libc.ts';
import { whenWritable } from './native/ready.ts';
import { streamOver } from './stream.ts';
import type { Stream } from './transport.ts';

/** The round trip takes a millisecond or two; on a machine so busy that it takes this long, nothing works. */
const SELF_TEST_TIMEOUT_MS = 10_000;
const QUESTION = 'postern';

let tested: Promise<void> | undefined;

/**
 * Proves once per thread that libc, the poll handle and Node's pipe handle do together what Postern needs: accept,
 * connect, bytes both ways, half-close. Node documents none of it, so a new release is found out here, with a
 * message that says so, and not by a stream that behaves oddly. @throws PosternError ERR_TRANSPORT_UNSUPPORTED
 */
export function requireTransport(): Promise<void> {
  tested ??= selfTest();
  return tested;
}

async function selfTest(): Promise<void> {
  const signal = AbortSignal.timeout(SELF_TEST_TIMEOUT_MS);
  try {
    const answer = await roundTrip(signal);
    if (answer !== QUESTION) throw new Error(`sent ${QUESTION}, got ${JSON.stringify(answer)} back`);
  } catch (cause) {
    const text = `Node ${process.version} cannot carry Postern's streams on this system: the self-test failed`;
    throw new PosternError('ERR_TRANSPORT_UNSUPPORTED', text, { cause });
  }
}

/** A stream to ourselves over a unix socket that has no file: an empty name makes the kernel choose a free one. */
async function roundTrip(signal: AbortSignal): Promise<string> {
  const fd = openSocket(AF_UNIX);
  let listener: PipeHandle | undefined;
  try {
    bindSocket(fd, Buffer.from([AF_UNIX, 0]));
    listenSocket(fd, 1);
    listener = adoptListener(fd, 1, (client) => echo(streamOver(client, { kind: 'pair' })));
    const stream = streamOver(await connectTo(localAddress(fd), signal), { kind: 'pair' });
    stream.end(QUESTION);
    const pieces: Buffer[] = await stream.toArray({ signal });
    return Buffer.concat(pieces).toString();
  } finally {
    listener?.close();
    closeDescriptor(fd);
  }
}

function echo(stream: Stream): void {
  stream.on('error', () => stream.destroy());
  stream.pipe(stream);
}

async function connectTo(address: Buffer, signal: AbortSignal): Promise<PipeHandle> {
  const fd = openSocket(AF_UNIX);
  try {
    startConnect(fd, address);
    await whenWritable(fd, signal);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  return adoptStream(fd);
}
