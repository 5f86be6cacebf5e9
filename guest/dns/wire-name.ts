import { PosternError } from '../../shared/errors.ts';
import { DomainName, NAME_MAX_BYTES, ROOT } from './name.ts';

/** A name has at most 127 labels, and every pointer of an honest encoder leads to at least one of them. */
export const POINTER_HOPS_MAX = 127;

export interface NameRead {
  readonly name: DomainName;
  /** The offset behind the name where it was written (behind its first pointer). */
  readonly end: number;
}

/**
 * Reads the name at `offset`, following compression (RFC 1035 section 4.1.4). Pointers must lead backwards, so no
 * loop is possible; hops and octets are bounded, so a name costs the same however it is written. `limit` is the end
 * of what may hold the name's own octets (the record's, for a name in rdata).
 * @throws PosternError ERR_DNS_MALFORMED
 */
export function readName(message: Buffer, offset: number, limit: number): NameRead {
  let key = '';
  let at = offset;
  let bound = limit;
  let end = -1;
  let hops = 0;
  for (;;) {
    if (at >= bound) throw malformed('a name runs past its end', offset);
    const length = message[at] ?? 0;
    if (length === 0) {
      if (end < 0) end = at + 1;
      break;
    }
    if (length >= 0xc0) {
      if (at + 2 > bound) throw malformed('a compression pointer is cut off', offset);
      const target = ((length & 0x3f) << 8) | (message[at + 1] ?? 0);
      if (end < 0) end = at + 2;
      hops += 1;
      if (target >= at || target < 12 || hops > POINTER_HOPS_MAX)
        throw malformed('a compression pointer leads nowhere', offset);
      bound = at;
      at = target;
      continue;
    }
    if (length > 63) throw malformed('a label has an unknown type', offset);
    if (at + 1 + length > bound) throw malformed('a label runs past its end', offset);
    if (key.length + 1 + length + 1 > NAME_MAX_BYTES) throw malformed('a name is over 255 octets', offset);
    key += lowered(message, at, at + 1 + length);
    at += 1 + length;
  }
  return { name: key === '' ? ROOT : DomainName.fromKey(`${key}\0`), end };
}

/** A label with its length octet; the length is under 64 and so is no letter. */
function lowered(message: Buffer, start: number, end: number): string {
  const octets = message.toString('latin1', start, end);
  return /[A-Z]/.test(octets) ? octets.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) : octets;
}

export function malformed(what: string, offset: number): PosternError {
  return new PosternError('ERR_DNS_MALFORMED', `malformed DNS message: ${what} (at octet ${offset})`);
}
