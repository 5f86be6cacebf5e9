import koffi from 'koffi';
import { PosternError } from '../../shared/errors.ts';
import { closeDescriptor } from '../../shared/transport/native/libc.ts';
import { type Attribute, attribute, decodeAnswer, encodeGeneric, type GenericMessage } from './netlink.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_GENERIC = 16;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;

/** The controller, which every kernel with generic netlink has under this number. */
const CONTROLLER = { family: 0x10, version: 1, getFamily: 3, attributeId: 1, attributeName: 2 } as const;

/** Answers to these commands are below 200 bytes. */
const ANSWER_MAX_BYTES = 8192;
/** The kernel answers before `send` returns; a disconnect first waits for its own threads, which is milliseconds. */
const ANSWER_TIMEOUT_SECONDS = 10;
/** A reply and its acknowledgement, and as many stray ones of an earlier sequence. */
const DATAGRAMS_MAX = 8;

type Argument = number | Buffer;
interface Call {
  (...args: Argument[]): number;
  async(...args: [...Argument[], (error: Error | null, result: number) => void]): void;
}

interface Libc {
  readonly socket: Call;
  readonly setsockopt: Call;
  readonly send: Call;
  readonly recv: Call;
}

let loaded: Libc | undefined;

function libc(): Libc {
  if (loaded === undefined) {
    const library = koffi.load(null);
    const declare = (prototype: string): Call => library.func(prototype) as unknown as Call;
    loaded = {
      socket: declare('int socket(int domain, int type, int protocol)'),
      setsockopt: declare('int setsockopt(int fd, int level, int name, void *value, uint32_t size)'),
      send: declare('intptr_t send(int fd, void *message, uintptr_t size, int flags)'),
      recv: declare('intptr_t recv(int fd, void *buffer, uintptr_t size, int flags)'),
    };
  }
  return loaded;
}

/** Off the event loop: what the kernel does for a command may wait for a request that this very loop must answer. */
function callAsync(call: Call, ...args: Argument[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error, result) => (error === null ? resolve(result) : reject(error)));
  });
}

/** What the kernel said: attributes, and its errno (0: done). */
export interface Outcome {
  readonly attributes: readonly Attribute[];
  readonly errorNumber: number;
}

/** One exchange on a socket of its own. @throws PosternError ERR_NBD_FAILED when the kernel does not answer */
export async function exchange(message: GenericMessage): Promise<Outcome> {
  const fd = libc().socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) throw new PosternError('ERR_NBD_FAILED', 'this kernel has no generic netlink');
  try {
    const timeout = Buffer.alloc(16);
    timeout.writeBigInt64LE(BigInt(ANSWER_TIMEOUT_SECONDS));
    libc().setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length);
    return await exchangeOn(fd, message);
  } finally {
    closeDescriptor(fd);
  }
}

async function exchangeOn(fd: number, message: GenericMessage): Promise<Outcome> {
  const sequence = 1;
  const bytes = encodeGeneric(message, sequence);
  const sent = await callAsync(libc().send, fd, bytes, bytes.length, 0);
  if (sent !== bytes.length) throw new PosternError('ERR_NBD_FAILED', 'the kernel did not take the command');
  const attributes: Attribute[] = [];
  const datagram = Buffer.alloc(ANSWER_MAX_BYTES);
  for (let count = 0; count < DATAGRAMS_MAX; count += 1) {
    const length = await callAsync(libc().recv, fd, datagram, datagram.length, 0);
    if (length <= 0) break;
    const answer = decodeAnswer(Buffer.from(datagram.subarray(0, length)), sequence);
    attributes.push(...answer.attributes);
    if (answer.errorNumber !== undefined) return { attributes, errorNumber: answer.errorNumber };
  }
  throw new PosternError('ERR_NBD_FAILED', 'the kernel did not answer the command');
}

/** The number of a generic netlink family; undefined when the kernel does not have it (its module is not loaded). */
export async function findFamily(name: string): Promise<number | undefined> {
  const { attributes, errorNumber } = await exchange({
    family: CONTROLLER.family,
    command: CONTROLLER.getFamily,
    version: CONTROLLER.version,
    attributes: [attribute(CONTROLLER.attributeName, Buffer.from(`${name}\0`))],
  });
  if (errorNumber !== 0) return undefined;
  return attributes.find(({ type }) => type === CONTROLLER.attributeId)?.payload.readUInt16LE();
}
