import { PosternError } from '../errors.ts';
import { checkPrefix } from './key.ts';
import type { ObjectStore } from './store.ts';

/** What an operator gave to one guest: the keys under a prefix, in one store. */
export interface Grant {
  /** Ends with a slash. */
  readonly prefix: string;
  readonly store: ObjectStore;
}

/**
 * One store out of a guest's grants: each call goes to the store whose prefix covers its key; every other key, and
 * a listing that reaches outside, is ERR_STORE_DENIED. Keys stay as they are; nothing is cut off or put in front.
 * @throws RangeError for grants that overlap, or a prefix without its slash (the configuration refuses them first)
 */
export function grantedStore(grants: readonly Grant[]): ObjectStore {
  for (const [index, { prefix }] of grants.entries()) {
    checkPrefix(prefix);
    if (!prefix.endsWith('/')) throw new RangeError(`grant ${prefix}: no slash at its end`);
    const other = grants.find((grant, at) => at !== index && prefix.startsWith(grant.prefix));
    if (other !== undefined) throw new RangeError(`grant ${prefix} lies in grant ${other.prefix}`);
  }
  const storeOf = (key: string): ObjectStore => {
    const grant = grants.find(({ prefix }) => key.startsWith(prefix));
    if (grant === undefined) throw new PosternError('ERR_STORE_DENIED', 'a key outside of what is granted');
    return grant.store;
  };
  return routed(storeOf);
}

function routed(storeOf: (key: string) => ObjectStore): ObjectStore {
  return {
    putIfAbsent: async (key, bytes, options) => storeOf(key).putIfAbsent(key, bytes, options),
    get: async (key, options) => storeOf(key).get(key, options),
    head: async (key, options) => storeOf(key).head(key, options),
    list: async (prefix, options) => storeOf(prefix).list(prefix, options),
    delete: async (key, options) => storeOf(key).delete(key, options),
  };
}
