import { createHash } from 'node:crypto';

const DIGEST_BYTES = 32;

/** Some share folders, some are the first in theirs. */
export function keyOf(index: number): string {
  return `volume/${String(index % 7).padStart(2, '0')}/${Math.floor(index / 50)}/${index}`;
}

/** A body that proves itself: its writer and its length, random-looking bytes, and the digest of all of it. */
export function bodyOf(key: string, writer: string, fillBytes: number): Buffer {
  const head = Buffer.from(`${key} ${writer} ${fillBytes}\n`);
  const fill = Buffer.alloc(fillBytes, createHash('sha256').update(head).digest());
  const digest = createHash('sha256').update(head).update(fill).digest();
  return Buffer.concat([head, fill, digest]);
}

/** Who wrote it; throws for a body that is not whole, or of another key. */
export function writerOf(key: string, body: Buffer): string {
  const lineEnd = body.indexOf('\n');
  const [name, writer = '', fillBytes] = body.toString('latin1', 0, Math.max(0, lineEnd)).split(' ');
  const whole = body.length === lineEnd + 1 + Number(fillBytes) + DIGEST_BYTES;
  const digest = createHash('sha256').update(body.subarray(0, -DIGEST_BYTES)).digest();
  if (name !== key || !whole || !digest.equals(body.subarray(-DIGEST_BYTES))) {
    throw new Error(`${key}: ${body.length} bytes that are no whole object`);
  }
  return writer;
}
