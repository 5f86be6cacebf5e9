import { PosternError } from '../errors.ts';
import type { ObjectPage, ObjectStore, StoreOptions } from './store.ts';

/**
 * Every object under a prefix, page after page, in byte order of keys. `maxKeys` bounds a store that never ends
 * (a hostile parent can invent keys faster than anyone reads them).
 * @throws PosternError ERR_STORE_LIMIT past `maxKeys`, and what `list` throws
 */
export async function* listAll(
  store: ObjectStore,
  prefix: string,
  options: StoreOptions & { readonly maxKeys: number; readonly after?: string },
): AsyncGenerator<ObjectPage['objects'][number]> {
  const { maxKeys, after: start, ...rest } = options;
  let after = start;
  let count = 0;
  for (;;) {
    const page = await store.list(prefix, after === undefined ? rest : { ...rest, after });
    for (const object of page.objects) {
      count += 1;
      if (count > maxKeys)
        throw new PosternError('ERR_STORE_LIMIT', `over ${maxKeys} objects under ${prefix}`);
      yield object;
      after = object.key;
    }
    if (!page.truncated) return;
  }
}
