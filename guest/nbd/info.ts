import { EXPORT_NAME_PADDING_BYTES, INFO } from './constants.ts';
import { blockSizes, type NbdExport, transmissionFlags } from './export.ts';
import { encodeInfo, encodeInfoText } from './options.ts';

/** The NBD_REP_INFO payloads that tell a client of an export, in order. */
export function infoPayloads(
  { device, name, description }: NbdExport,
  requests: readonly number[],
  structured: boolean,
): Buffer[] {
  const [minimum, preferred, maximum] = blockSizes(device);
  const payloads = [
    encodeInfo(INFO.EXPORT, [
      [8, device.sizeBytes],
      [2, transmissionFlags(device, structured)],
    ]),
    // Unasked too: a minimum of 1 binds nobody, and a client that ignores types it did not ask for loses nothing.
    encodeInfo(INFO.BLOCK_SIZE, [
      [4, minimum],
      [4, preferred],
      [4, maximum],
    ]),
  ];
  if (requests.includes(INFO.NAME)) payloads.push(encodeInfoText(INFO.NAME, name));
  if (requests.includes(INFO.DESCRIPTION) && description !== undefined) {
    payloads.push(encodeInfoText(INFO.DESCRIPTION, description));
  }
  return payloads;
}

/** What NBD_OPT_EXPORT_NAME is answered with: bare, as the oldest clients expect it. */
export function exportNameReply({ device }: NbdExport, structured: boolean, noZeroes: boolean): Buffer {
  const bytes = Buffer.alloc(10 + (noZeroes ? 0 : EXPORT_NAME_PADDING_BYTES));
  bytes.writeBigUInt64BE(BigInt(device.sizeBytes), 0);
  bytes.writeUInt16BE(transmissionFlags(device, structured), 8);
  return bytes;
}
