import { PosternError } from '../errors.ts';
import { KEY_MAX_BYTES } from '../objects/key.ts';
import { LIST_MAX_KEYS, OBJECT_MAX_BYTES, type ObjectPage } from '../objects/store.ts';

const ENTRY_FIXED_BYTES = 6;
/** A page of the longest keys. */
export const PAGE_MAX_BYTES = LIST_MAX_KEYS * (ENTRY_FIXED_BYTES + KEY_MAX_BYTES);

/** The body of a page: for each object `keyLength u16 | size u32 | key`. See object.md. */
export function encodePage(objects: ObjectPage['objects']): Buffer {
  return Buffer.concat(
    objects.map(({ key, sizeBytes }) => {
      const entry = Buffer.alloc(ENTRY_FIXED_BYTES + key.length);
      entry.writeUInt16BE(key.length, 0);
      entry.writeUInt32BE(sizeBytes, 2);
      entry.write(key, ENTRY_FIXED_BYTES, 'latin1');
      return entry;
    }),
  );
}

/**
 * Exactly `count` entries and nothing behind them. Whether the keys are keys, and in order, is the caller's to check.
 * @throws PosternError ERR_WIRE_MALFORMED
 */
export function decodePage(body: Buffer, count: number): ObjectPage['objects'] {
  const objects: { key: string; sizeBytes: number }[] = [];
  let offset = 0;
  for (let index = 0; index < count; index += 1) {
    const start = offset + ENTRY_FIXED_BYTES;
    if (start > body.length) throw malformed(`${index} of ${count} entries`);
    const keyLength = body.readUInt16BE(offset);
    const sizeBytes = body.readUInt32BE(offset + 2);
    offset = start + keyLength;
    if (keyLength > KEY_MAX_BYTES || offset > body.length || sizeBytes > OBJECT_MAX_BYTES) {
      throw malformed(`entry ${index} with a key of ${keyLength} and an object of ${sizeBytes} bytes`);
    }
    objects.push({ key: body.toString('latin1', start, offset), sizeBytes });
  }
  if (offset !== body.length) throw malformed(`${body.length - offset} bytes behind its last entry`);
  return objects;
}

function malformed(what: string): PosternError {
  return new PosternError('ERR_WIRE_MALFORMED', `object page: ${what}`);
}
