import { constants } from 'node:os';
import { PosternError } from '../../shared/errors.ts';
import { adoptStream } from '../../shared/transport/native/handle.ts';
import { closeDescriptor, openSocketPair } from '../../shared/transport/native/libc.ts';
import { streamOver } from '../../shared/transport/stream.ts';
import type { BlockDevice } from './device.ts';
import { type NbdExport, transmissionFlags } from './export.ts';
import { nested, u32Attribute, u64Attribute } from './netlink.ts';
import { exchange, findFamily } from './netlink-socket.ts';
import type { NbdServer } from './server.ts';

/** linux/nbd-netlink.h */
const FAMILY = { name: 'nbd', version: 1 } as const;
const COMMAND = { CONNECT: 1, DISCONNECT: 2, RECONFIGURE: 3 } as const;
const ATTRIBUTE = {
  INDEX: 1,
  SIZE_BYTES: 2,
  BLOCK_SIZE_BYTES: 3,
  TIMEOUT: 4,
  SERVER_FLAGS: 5,
  SOCKETS: 7,
} as const;
const SOCK_ITEM = 1;
const SOCK_FD = 1;

/** One queue of 128 requests each; a second one keeps a large write from standing before small reads. */
const DEFAULT_CONNECTIONS = 2;
/** The kernel takes blocks from a sector to its page, which is at least this on every machine. */
const SECTOR_BYTES = 512;
const BLOCK_MAX_BYTES = 4096;
/**
 * A week: the kernel waits as long as the device does, whose own deadline ends in EIO. Only it knows when to give up. Not
 * zero, "no timeout": with more than one connection the kernel then takes 30 s, gives a connection up for each request that
 * is not answered by then, and answers EIO when none is left. Its count in jiffies has 32 bits.
 */
const KERNEL_TIMEOUT_SECONDS = 604_800;

export interface AttachOptions {
  /** The N of /dev/nbdN; without it the kernel takes the first that is free. */
  readonly index?: number;
  readonly connections?: number;
}

/** A block device of the kernel over an export of this process. */
export interface Attachment {
  readonly index: number;
  /** /dev/nbdN */
  readonly path: string;
  /** Tells the kernel that the device has its present `sizeBytes` now. @throws PosternError ERR_NBD_* */
  resize(): Promise<void>;
  /** Takes the device away from whoever has it open; unmount first. @throws PosternError ERR_NBD_* */
  detach(): Promise<void>;
  /** Resolves when the kernel has let every connection go, whoever asked for it. */
  readonly detached: Promise<void>;
}

/**
 * Makes /dev/nbdN of an export: the kernel's nbd client gets one end of a socketpair for each connection, by generic
 * netlink, and the server the other, past the handshake (which the kernel does not speak). Needs CAP_SYS_ADMIN.
 * A rest of fewer than 512 bytes at the end of the device is out of the kernel's reach.
 * @throws PosternError ERR_NBD_UNAVAILABLE (no nbd in this kernel), ERR_NBD_DENIED, ERR_NBD_BUSY, ERR_NBD_FAILED
 */
export async function attach(
  server: NbdServer,
  served: NbdExport,
  options: AttachOptions = {},
): Promise<Attachment> {
  const family = await nbdFamily();
  const kernelEnds: number[] = [];
  const connections: Promise<void>[] = [];
  try {
    for (let count = options.connections ?? DEFAULT_CONNECTIONS; count > 0; count -= 1) {
      const [ours, theirs] = openSocketPair();
      kernelEnds.push(theirs);
      connections.push(server.serveKernel(streamOver(adoptStream(ours), { kind: 'pair' }), served));
    }
    const detached = Promise.all(connections).then(() => undefined);
    const index = await connectKernel(family, served.device, kernelEnds, options.index);
    return attachment(family, index, served.device, detached);
  } finally {
    // The kernel holds its own reference to each; where it took none, this ends the connections.
    for (const fd of kernelEnds) closeDescriptor(fd);
  }
}

/**
 * Takes /dev/nbdN away from whoever connected it: for one whose process is gone, which the kernel keeps until it is told.
 * @throws PosternError ERR_NBD_*
 */
export async function disconnect(index: number): Promise<void> {
  const family = await nbdFamily();
  await command(
    family,
    COMMAND.DISCONNECT,
    [u32Attribute(ATTRIBUTE.INDEX, index)],
    `detach /dev/nbd${index}`,
  );
}

function attachment(family: number, index: number, device: BlockDevice, detached: Promise<void>): Attachment {
  const indexAttribute = u32Attribute(ATTRIBUTE.INDEX, index);
  return {
    index,
    path: `/dev/nbd${index}`,
    detached,
    async resize() {
      const size = u64Attribute(ATTRIBUTE.SIZE_BYTES, device.sizeBytes);
      await command(family, COMMAND.RECONFIGURE, [indexAttribute, size], `resize /dev/nbd${index}`);
    },
    async detach() {
      await command(family, COMMAND.DISCONNECT, [indexAttribute], `detach /dev/nbd${index}`);
      await detached;
    },
  };
}

async function nbdFamily(): Promise<number> {
  const family = await findFamily(FAMILY.name);
  if (family !== undefined) return family;
  const text =
    'this kernel has no network block device: load it with `modprobe nbd`, or build it in (CONFIG_BLK_DEV_NBD)';
  throw new PosternError('ERR_NBD_UNAVAILABLE', text);
}

async function connectKernel(
  family: number,
  device: BlockDevice,
  fds: readonly number[],
  wanted: number | undefined,
): Promise<number> {
  const sockets = fds.map((fd) => nested(SOCK_ITEM, [u32Attribute(SOCK_FD, fd)]));
  const attributes = [
    ...(wanted === undefined ? [] : [u32Attribute(ATTRIBUTE.INDEX, wanted)]),
    u64Attribute(ATTRIBUTE.SIZE_BYTES, device.sizeBytes),
    u64Attribute(ATTRIBUTE.BLOCK_SIZE_BYTES, kernelBlockBytes(device)),
    u64Attribute(ATTRIBUTE.TIMEOUT, KERNEL_TIMEOUT_SECONDS),
    u64Attribute(ATTRIBUTE.SERVER_FLAGS, transmissionFlags(device, false)),
    nested(ATTRIBUTE.SOCKETS, sockets),
  ];
  const place = wanted === undefined ? 'a free /dev/nbdN' : `/dev/nbd${wanted}`;
  const answered = await command(family, COMMAND.CONNECT, attributes, `attach ${place}`);
  const index = answered.find(({ type }) => type === ATTRIBUTE.INDEX)?.payload.readUInt32LE() ?? wanted;
  if (index === undefined)
    throw new PosternError('ERR_NBD_FAILED', 'the kernel did not say which device it took');
  return index;
}

/** The largest that the kernel takes, the device likes and the size is a multiple of. */
export function kernelBlockBytes({ sizeBytes, preferredBlockBytes }: BlockDevice): number {
  let bytes = BLOCK_MAX_BYTES;
  while (bytes > SECTOR_BYTES && (bytes > preferredBlockBytes || sizeBytes % bytes !== 0)) bytes /= 2;
  return bytes;
}

async function command(family: number, number: number, attributes: readonly Buffer[], what: string) {
  const outcome = await exchange({ family, command: number, version: FAMILY.version, attributes });
  if (outcome.errorNumber === 0) return outcome.attributes;
  const { EPERM, EACCES, EBUSY } = constants.errno;
  switch (outcome.errorNumber) {
    case EPERM:
    case EACCES:
      throw new PosternError('ERR_NBD_DENIED', `cannot ${what}: it needs CAP_SYS_ADMIN`);
    case EBUSY:
      throw new PosternError('ERR_NBD_BUSY', `cannot ${what}: it is in use`);
    default:
      throw new PosternError('ERR_NBD_FAILED', `cannot ${what}: errno ${outcome.errorNumber}`);
  }
}
