import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';

/** A self-signed certificate for one name, for the demo's stand-in of the internet; PEM. */
export interface Certificate {
  readonly certificate: string;
  readonly privateKey: string;
}

const OID = {
  commonName: '0603550403',
  ecdsaWithSha256: '06082a8648ce3d040302',
  subjectAltName: '0603551d11',
  basicConstraints: '0603551d13',
};
const DAY_MS = 86_400_000;

/** X.509 version 3 (RFC 5280) in DER, ECDSA P-256; valid from yesterday for a week. */
export function selfSignedCertificate(name: string): Certificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const subject = sequence(set(sequence(hex(OID.commonName), der(0x0c, Buffer.from(name)))));
  const algorithm = sequence(hex(OID.ecdsaWithSha256));
  const body = sequence(
    der(0xa0, integer(Buffer.from([2]))),
    integer(Buffer.concat([Buffer.from([0x01]), randomBytes(15)])),
    algorithm,
    subject,
    sequence(time(Date.now() - DAY_MS), time(Date.now() + 7 * DAY_MS)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(subjectAltName(name), certificateAuthority())),
  );
  const bytes = sequence(body, algorithm, bitString(sign('sha256', body, privateKey)));
  return { certificate: pem('CERTIFICATE', bytes), privateKey: exportKey(privateKey) };
}

function subjectAltName(name: string): Buffer {
  const dnsName = der(0x82, Buffer.from(name));
  return sequence(hex(OID.subjectAltName), der(0x04, sequence(dnsName)));
}

/** So that clients accept it as its own trust anchor. */
function certificateAuthority(): Buffer {
  const isAuthority = der(0x01, Buffer.from([0xff]));
  return sequence(hex(OID.basicConstraints), isAuthority, der(0x04, sequence(isAuthority)));
}

function exportKey(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/** UTCTime, as RFC 5280 asks for years before 2050. */
function time(epochMs: number): Buffer {
  const digits = new Date(epochMs).toISOString().replace(/[-:T]/g, '').slice(2, 14);
  return der(0x17, Buffer.from(`${digits}Z`));
}

function integer(bytes: Buffer): Buffer {
  return der(0x02, bytes);
}

function bitString(bytes: Buffer): Buffer {
  return der(0x03, Buffer.concat([Buffer.from([0]), bytes]));
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts));
}

function set(...parts: Buffer[]): Buffer {
  return der(0x31, Buffer.concat(parts));
}

function hex(text: string): Buffer {
  return Buffer.from(text, 'hex');
}

function der(tag: number, content: Buffer): Buffer {
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content]);
  if (length < 0x100) return Buffer.concat([Buffer.from([tag, 0x81, length]), content]);
  return Buffer.concat([Buffer.from([tag, 0x82, length >> 8, length & 0xff]), content]);
}
