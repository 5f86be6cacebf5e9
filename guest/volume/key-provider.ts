import { scrypt } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import * as v from 'valibot';
import { PosternError } from '../../shared/errors.ts';
import { KEY_BYTES } from './keys.ts';

/** A key file holds 64 hex digits, or 32 bytes; a passphrase is a line. */
const KEY_FILE_MAX_BYTES = 4096;
const PASSPHRASE_MIN_CHARS = 12;
/** scrypt (RFC 7914): 128 MiB and about half a second, once an attach. Fixed, so that a host cannot choose them. */
const SCRYPT = { N: 2 ** 17, r: 8, p: 1, maxmem: 192 * 1024 * 1024 } as const;

/** Which provider gives K_root: part of the measured configuration, and never guessed from what is at hand. */
export const KeyProviderSchema = v.variant('kind', [
  v.strictObject({ kind: v.literal('file'), path: v.pipe(v.string(), v.minLength(1)) }),
  v.strictObject({ kind: v.literal('env'), variable: v.pipe(v.string(), v.regex(/^[A-Z][A-Z0-9_]{0,63}$/)) }),
  v.strictObject({ kind: v.literal('passphrase'), path: v.pipe(v.string(), v.minLength(1)) }),
]);
export type KeyProviderConfig = v.InferOutput<typeof KeyProviderSchema>;

/** Gives the root key of a volume, KEY_BYTES long, or throws ERR_VOLUME_KEY; there is no third outcome. */
export interface KeyProvider {
  readonly kind: string;
  /** `salt`: from the volume's header, 16 bytes; only a passphrase needs it. */
  rootKey(salt: Buffer): Promise<Buffer>;
}

/** `environment`: where `env` looks; given by whoever parses configuration. */
export function createKeyProvider(
  config: KeyProviderConfig,
  environment: Readonly<Record<string, string | undefined>>,
): KeyProvider {
  switch (config.kind) {
    case 'file':
      return { kind: 'file', rootKey: async () => parseKey(await readKeyFile(config.path), config.path) };
    case 'env':
      return {
        kind: 'env',
        rootKey: async () => parseKey(Buffer.from(environment[config.variable] ?? ''), config.variable),
      };
    case 'passphrase':
      return {
        kind: 'passphrase',
        rootKey: async (salt) => fromPassphrase(await readKeyFile(config.path), salt, config.path),
      };
  }
}

/** 64 hex digits with or without a line end, or exactly KEY_BYTES bytes. */
export function parseKey(bytes: Buffer, source: string): Buffer {
  if (bytes.length === KEY_BYTES) return Buffer.from(bytes);
  const text = bytes.toString('latin1').trim();
  if (!/^[0-9a-fA-F]{64}$/.test(text)) {
    throw new PosternError('ERR_VOLUME_KEY', `${source}: a key is 64 hex digits or ${KEY_BYTES} bytes`);
  }
  return Buffer.from(text, 'hex');
}

async function fromPassphrase(bytes: Buffer, salt: Buffer, source: string): Promise<Buffer> {
  // NFKC, so that the same words typed on another keyboard are the same key.
  const passphrase = bytes
    .toString('utf8')
    .replace(/\r?\n$/, '')
    .normalize('NFKC');
  if (passphrase.length < PASSPHRASE_MIN_CHARS) {
    throw new PosternError(
      'ERR_VOLUME_KEY',
      `${source}: a passphrase has at least ${PASSPHRASE_MIN_CHARS} characters`,
    );
  }
  return new Promise((resolve, reject) => {
    scrypt(passphrase, salt, KEY_BYTES, SCRYPT, (error, key) => (error ? reject(error) : resolve(key)));
  });
}

async function readKeyFile(path: string): Promise<Buffer> {
  try {
    const { size } = await stat(path);
    if (size > KEY_FILE_MAX_BYTES)
      throw new PosternError('ERR_VOLUME_KEY', `${path}: ${size} bytes are no key`);
    return await readFile(path);
  } catch (error) {
    if (error instanceof PosternError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new PosternError('ERR_VOLUME_KEY', `${path}: cannot be read: ${reason}`, { cause: error });
  }
}
