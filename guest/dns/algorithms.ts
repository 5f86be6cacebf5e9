import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { promisify } from 'node:util';

/** How a DNSSEC algorithm number (RFC 8624 section 3.1) is checked with node:crypto. */
export interface SigningAlgorithm {
  readonly mnemonic: string;
  readonly digest: string | undefined;
  /** The only length its signatures have; undefined for RSA, where the modulus says. */
  readonly signatureBytes?: number;
  /** Verified in some 0.1 ms, which is what handing it to another thread and back takes. */
  readonly isQuick?: true;
  /** Undefined where the octets are no key of this algorithm. */
  importKey(publicKey: Buffer): KeyObject | undefined;
}

/** RFC 5702 section 2: a modulus of 512 to 4096 bits. */
const RSA_MODULUS_MIN_BYTES = 64;
const RSA_MODULUS_MAX_BYTES = 512;
/** Verification takes as long as the exponent is; every key in use has 3 or 65537. */
const RSA_EXPONENT_MAX_BYTES = 5;

const SPKI_P256 = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex');
const SPKI_P384 = Buffer.from('3076301006072a8648ce3d020106052b8104002203620004', 'hex');
const SPKI_ED25519 = Buffer.from('302a300506032b6570032100', 'hex');
const SPKI_ED448 = Buffer.from('3043300506032b6571033a00', 'hex');

const ALGORITHMS = new Map<number, SigningAlgorithm>([
  [8, { mnemonic: 'RSASHA256', digest: 'sha256', importKey: importRsa }],
  [10, { mnemonic: 'RSASHA512', digest: 'sha512', importKey: importRsa }],
  [13, { ...fixed('ECDSAP256SHA256', 'sha256', SPKI_P256, 64, 64), isQuick: true }],
  [14, fixed('ECDSAP384SHA384', 'sha384', SPKI_P384, 96, 96)],
  [15, { ...fixed('ED25519', undefined, SPKI_ED25519, 32, 64), isQuick: true }],
  [16, fixed('ED448', undefined, SPKI_ED448, 57, 114)],
]);

const OTHER_MNEMONICS = new Map([
  [1, 'RSAMD5'],
  [3, 'DSA'],
  [5, 'RSASHA1'],
  [6, 'DSA-NSEC3-SHA1'],
  [7, 'RSASHA1-NSEC3-SHA1'],
  [12, 'ECC-GOST'],
]);

/**
 * Undefined for an algorithm that is not checked here. 5 and 7 are such (RFC 9905): a zone that has nothing better is
 * insecure, never secure.
 */
export function signingAlgorithm(number: number): SigningAlgorithm | undefined {
  return ALGORITHMS.get(number);
}

export function algorithmName(number: number): string {
  return ALGORITHMS.get(number)?.mnemonic ?? OTHER_MNEMONICS.get(number) ?? `ALGORITHM${number}`;
}

/**
 * One verification; false for every kind of bad signature. Elliptic curves go to another thread, since they take up to
 * 0.7 ms (P-384); an RSA verification is over before it would be handed there. With `isAlone` there is nothing else for
 * this thread to do, and quick ones stay too.
 */
export async function verifySignature(
  algorithm: SigningAlgorithm,
  key: KeyObject,
  data: Buffer,
  signature: Buffer,
  isAlone = false,
): Promise<boolean> {
  if (algorithm.signatureBytes !== undefined && signature.length !== algorithm.signatureBytes) return false;
  const input = key.asymmetricKeyType === 'ec' ? { key, dsaEncoding: 'ieee-p1363' as const } : key;
  try {
    const isHere = key.asymmetricKeyType === 'rsa' || (isAlone && algorithm.isQuick === true);
    if (isHere) return verify(algorithm.digest, data, input, signature);
    return await verifyElsewhere(algorithm.digest, data, input, signature);
  } catch {
    // OpenSSL throws, rather than saying no, for numbers that are out of range for the key.
    return false;
  }
}

const verifyElsewhere = promisify(verify) as (
  digest: string | undefined,
  data: Buffer,
  input: Parameters<typeof verify>[2],
  signature: Buffer,
) => Promise<boolean>;

function fixed(
  mnemonic: string,
  digest: string | undefined,
  prefix: Buffer,
  keyBytes: number,
  signatureBytes: number,
): SigningAlgorithm {
  return {
    mnemonic,
    digest,
    signatureBytes,
    importKey: (publicKey) => (publicKey.length === keyBytes ? importSpki(prefix, publicKey) : undefined),
  };
}

function importSpki(prefix: Buffer, publicKey: Buffer): KeyObject | undefined {
  try {
    return createPublicKey({ key: Buffer.concat([prefix, publicKey]), format: 'der', type: 'spki' });
  } catch {
    return undefined; // a point that is not on the curve
  }
}

/** RFC 3110 section 2: the exponent's length in one octet or three, the exponent, the modulus. */
function importRsa(publicKey: Buffer): KeyObject | undefined {
  const short = publicKey[0] ?? 0;
  const start = short === 0 ? 3 : 1;
  const exponentBytes = short === 0 && publicKey.length >= 3 ? publicKey.readUInt16BE(1) : short;
  const exponent = trimZeros(publicKey.subarray(start, start + exponentBytes));
  const modulus = trimZeros(publicKey.subarray(start + exponentBytes));
  if (exponent.length < 1 || exponent.length > RSA_EXPONENT_MAX_BYTES) return undefined;
  if (modulus.length < RSA_MODULUS_MIN_BYTES || modulus.length > RSA_MODULUS_MAX_BYTES) return undefined;
  try {
    const jwk = { kty: 'RSA', n: modulus.toString('base64url'), e: exponent.toString('base64url') };
    return createPublicKey({ key: jwk, format: 'jwk' });
  } catch {
    return undefined;
  }
}

function trimZeros(octets: Buffer): Buffer {
  let start = 0;
  while (octets[start] === 0) start += 1;
  return octets.subarray(start);
}
