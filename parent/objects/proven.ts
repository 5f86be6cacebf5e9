import { isPosternError, PosternError } from '../../shared/errors.ts';
import { wrapStore } from '../../shared/objects/around.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import { probeStore } from './probe.ts';

export interface ProvenStore {
  readonly store: ObjectStore;
  /**
   * Runs the probe, once; a store that could not be reached is tried again by the next call.
   * @throws PosternError ERR_STORE_UNSUITABLE, or what the store throws
   */
  prove(): Promise<void>;
}

/**
 * A store that serves nothing before the probe said that it honours conditional writes, and nothing at all when it
 * does not. The parent may so start, and carry the network, while a store is out of reach.
 */
export function provenStore(inner: ObjectStore, prefix: string, probe = probeStore): ProvenStore {
  let proof: Promise<void> | undefined;
  let proven = false;
  const prove = (): Promise<void> => {
    proof ??= probe(inner, prefix).then(
      () => {
        proven = true;
      },
      (error: unknown) => {
        if (!isPosternError(error, 'ERR_STORE_UNSUITABLE')) proof = undefined;
        throw error;
      },
    );
    return proof;
  };
  const store = wrapStore(inner, async (call, run) => {
    if (!proven) await prove().catch(refuse);
    return run(call.signal);
  });
  return { store, prove };
}

/** In the terms of the store's interface: the guest can do nothing about an unsuitable store. */
function refuse(error: unknown): never {
  if (!isPosternError(error, 'ERR_STORE_UNSUITABLE')) throw error;
  throw new PosternError('ERR_STORE_DENIED', error.message, { cause: error });
}
