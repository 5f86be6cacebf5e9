import type { KeyObject } from 'node:crypto';
import { type SigningAlgorithm, signingAlgorithm } from './algorithms.ts';

const FLAG_ZONE = 0x0100;
/** RFC 5011 section 2.1: such a key says that it is no key any more. */
const FLAG_REVOKED = 0x0080;
const PROTOCOL_DNSSEC = 3;
const HEADER_BYTES = 4;
/** A key beside its octets, when it has been imported: OpenSSL's own form of RSA-2048 takes most of it (measured). */
const KEY_BYTES = 2560;

/** A DNSKEY (RFC 4034 section 2) that may sign: a zone key, protocol 3, not revoked, of an algorithm we check. */
export interface ZoneKey {
  readonly flags: number;
  readonly algorithm: number;
  readonly keyTag: number;
  readonly rdata: Buffer;
  readonly signing: SigningAlgorithm;
  /** Imported at the first use and kept: it costs as much as a verification. Undefined for octets that are no key. */
  keyObject(): KeyObject | undefined;
}

/** Undefined where the record may not be used to verify. */
export function parseZoneKey(rdata: Buffer): ZoneKey | undefined {
  if (rdata.length <= HEADER_BYTES) return undefined;
  const flags = rdata.readUInt16BE(0);
  const algorithm = rdata.readUInt8(3);
  const signing = signingAlgorithm(algorithm);
  if ((flags & FLAG_ZONE) === 0 || (flags & FLAG_REVOKED) !== 0) return undefined;
  if (rdata.readUInt8(2) !== PROTOCOL_DNSSEC || signing === undefined) return undefined;
  // Keys are kept for as long as their zone; octets of the pool would keep all that was cut from it beside them.
  const own = Buffer.allocUnsafeSlow(rdata.length);
  rdata.copy(own);
  let imported: { key: KeyObject | undefined } | undefined;
  return {
    flags,
    algorithm,
    keyTag: keyTag(own),
    rdata: own,
    signing,
    keyObject() {
      imported ??= { key: signing.importKey(own.subarray(HEADER_BYTES)) };
      return imported.key;
    },
  };
}

/** RFC 4034 appendix B, for every algorithm but 1. */
export function keyTag(rdata: Buffer): number {
  let sum = 0;
  for (let at = 0; at < rdata.length; at += 1) sum += (rdata[at] ?? 0) << (at % 2 === 0 ? 8 : 0);
  return (sum + Math.floor(sum / 0x10000)) & 0xffff;
}

/** The keys of a zone, listed by algorithm and tag: tags collide, so each holds a list. */
export class KeyRing {
  readonly size: number;
  /** What the keys hold in memory once they have all been used. */
  readonly sizeBytes: number;
  readonly #byTag = new Map<number, ZoneKey[]>();

  constructor(keys: readonly ZoneKey[]) {
    this.size = keys.length;
    this.sizeBytes = keys.reduce((sum, { rdata }) => sum + KEY_BYTES + rdata.length, 0);
    for (const key of keys) {
      const slot = (key.algorithm << 16) | key.keyTag;
      const list = this.#byTag.get(slot);
      if (list === undefined) this.#byTag.set(slot, [key]);
      else list.push(key);
    }
  }

  find(algorithm: number, tag: number): readonly ZoneKey[] {
    return this.#byTag.get((algorithm << 16) | tag) ?? [];
  }
}
