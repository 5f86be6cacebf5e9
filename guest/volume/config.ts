import * as v from 'valibot';
import { isPosternError } from '../../shared/errors.ts';
import { parseTransportAddress } from '../../shared/transport/address.ts';
import { KeyProviderSchema } from './key-provider.ts';

const path = v.pipe(
  v.string('an absolute path'),
  v.check((text) => text.startsWith('/') && !text.includes('\0'), 'an absolute path'),
);
/** A name is part of object keys, and of the header that every wrap authenticates. */
const name = v.pipe(
  v.string('a volume name'),
  v.regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'lower-case letters, digits and hyphens, at most 63'),
);
const prefix = v.pipe(
  v.string('a key prefix'),
  v.regex(/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/, 'segments of letters, digits, ., _ and -, parted by /'),
);
const transportAddress = v.pipe(
  v.string('a transport address such as vsock:3:5000'),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    try {
      return parseTransportAddress(dataset.value);
    } catch (error) {
      if (!isPosternError(error)) throw error;
      addIssue({ message: 'vsock:CID:PORT, hybrid:PATH:PORT or unix:PATH' });
      return NEVER;
    }
  }),
);

/** Where objects are kept: through the parent's relay, or in a folder of this machine (development, and offline work). */
const store = v.variant('kind', [
  v.strictObject({ kind: v.literal('relay'), parent: transportAddress, sessionKey: path }),
  v.strictObject({ kind: v.literal('directory'), path }),
]);

/** `none` only opens volumes that were made with mode none: what is written here never weakens a volume. */
const anchor = v.variant('kind', [
  v.strictObject({ kind: v.literal('file'), path }),
  v.strictObject({ kind: v.literal('none') }),
]);

const volume = v.strictObject({
  name,
  prefix: v.optional(prefix),
  store,
  key: KeyProviderSchema,
  anchor,
});

export const volumesSchema = v.strictObject({
  version: v.literal(1),
  volumes: v.pipe(v.array(volume), v.minLength(1, 'at least one volume'), v.maxLength(64, 'at most 64')),
});

export type VolumeConfig = v.InferOutput<typeof volume>;
export type VolumesFile = v.InferOutput<typeof volumesSchema>;

const UNITS: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** `512`, `10G`, `1T` (powers of 1024) as bytes; undefined when it is none. */
export function parseSize(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,15})([KMGT]?)(?:iB|B)?$/.exec(text) ?? [];
  if (digits === undefined) return undefined;
  const bytes = Number(digits) * (UNITS[unit ?? ''] ?? 1);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
