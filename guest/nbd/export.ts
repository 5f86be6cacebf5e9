import { TRANSMISSION_FLAG as FLAG } from './constants.ts';
import type { BlockDevice } from './device.ts';
import { MAX_PAYLOAD_BYTES } from './limits.ts';

/** A device under the name by which clients ask for it. */
export interface NbdExport {
  /** At most MAX_STRING_BYTES of UTF-8; the empty name is the one that clients ask for when they name none. */
  readonly name: string;
  /** One line for a person who lists the exports. */
  readonly description?: string;
  readonly device: BlockDevice;
}

/** Where a handshake finds exports. */
export interface ExportTable {
  /** The empty name finds the only export, where there is exactly one. */
  find(name: string): NbdExport | undefined;
  list(): Iterable<NbdExport>;
}

/** What both sides agreed on before the first request. */
export interface Agreement {
  readonly export: NbdExport;
  readonly structured: boolean;
  /** The client selected the context base:allocation for this export. */
  readonly allocation: boolean;
}

/** The 16 bits that tell a client what this export can do. */
export function transmissionFlags(device: BlockDevice, structured: boolean): number {
  const common =
    FLAG.HAS_FLAGS |
    FLAG.SEND_FLUSH |
    FLAG.SEND_FUA |
    FLAG.CAN_MULTI_CONN |
    FLAG.SEND_CACHE |
    (structured ? FLAG.SEND_DF : 0);
  if (device.readOnly) return common | FLAG.READ_ONLY;
  return common | FLAG.SEND_TRIM | FLAG.SEND_WRITE_ZEROES | FLAG.SEND_FAST_ZERO;
}

/** Minimum, preferred and largest block: the preferred one made a power of two of at least 512, as clients insist. */
export function blockSizes(device: BlockDevice): readonly [number, number, number] {
  const wanted = Math.min(Math.max(device.preferredBlockBytes, 512), MAX_PAYLOAD_BYTES);
  return [1, 2 ** Math.floor(Math.log2(wanted)), MAX_PAYLOAD_BYTES];
}
