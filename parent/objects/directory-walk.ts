import { readdir } from 'node:fs/promises';
import { isKey } from '../../shared/objects/key.ts';
import { errnoOf } from './folders.ts';

/** Ends the name of every object's file. It is in no key, so that `a` and `a/b` are a file `a%` and a folder `a`. */
export const OBJECT_MARK = '%';

/**
 * The keys under a prefix and behind `after`, in byte order, out of the folders that can hold any. Files that are not
 * the store's own, and symbolic links, are passed over.
 */
export async function* walkKeys(root: string, prefix: string, after: string): AsyncGenerator<string> {
  const cut = prefix.lastIndexOf('/') + 1;
  yield* walkFolder(root, prefix.slice(0, cut), prefix, after);
}

async function* walkFolder(
  root: string,
  path: string,
  prefix: string,
  after: string,
): AsyncGenerator<string> {
  for (const name of await entries(root + path)) {
    const key = path + name;
    if (!name.endsWith('/')) {
      if (key.startsWith(prefix) && key > after) yield key;
      continue;
    }
    const mayMatch = key.startsWith(prefix) || prefix.startsWith(key);
    const behind = key > after || after.startsWith(key);
    if (mayMatch && behind) yield* walkFolder(root, key, prefix, after);
  }
}

/** Objects by their name, folders with a slash at the end: sorted so, a walk in depth is in the order of keys. */
async function entries(folder: string): Promise<string[]> {
  const names: string[] = [];
  for (const entry of await readFolder(folder)) {
    const isObject = entry.isFile() && entry.name.endsWith(OBJECT_MARK);
    const name = isObject ? entry.name.slice(0, -OBJECT_MARK.length) : entry.name;
    if (isKey(name) && !name.includes('/') && (isObject || entry.isDirectory())) {
      names.push(isObject ? name : `${name}/`);
    }
  }
  return names.sort();
}

async function readFolder(folder: string) {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return [];
    throw error;
  }
}
