import { PosternError } from '../../../shared/errors.ts';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** `10GiB`, `1.5TiB`, or bytes. @throws PosternError ERR_CONFIG_INVALID */
export function parseSize(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*([KMGT]iB)?$/.exec(text) ?? [];
  const bytes = Number(digits) * (UNITS[unit] ?? Number.NaN);
  if (digits !== '' && Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new PosternError(
    'ERR_CONFIG_INVALID',
    `--size: expected a size such as 10GiB, found ${JSON.stringify(text)}`,
  );
}

/** With the largest unit that leaves no more than a digit behind the point out. */
export function formatSize(bytes: number): string {
  const unit = ['TiB', 'GiB', 'MiB', 'KiB'].find((name) => bytes >= (UNITS[name] ?? 1));
  if (unit === undefined) return `${bytes} bytes`;
  const value = bytes / (UNITS[unit] ?? 1);
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${unit}`;
}
