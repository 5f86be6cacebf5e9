import { grantedStore } from '../../shared/objects/grant.ts';
import { limitedStore } from '../../shared/objects/limit.ts';
import { observedStore, type StoreObservation } from '../../shared/objects/observe.ts';
import { quotaStore } from '../../shared/objects/quota.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import type { GrantConfig, ObjectLimits } from './config.ts';
import { ObjectService } from './service.ts';

/**
 * The object service of one guest: its grants and nothing else, counted against its quotas, limited apart from every
 * other guest.
 * @param storeOf a proven store by its name in the configuration
 */
export function createGuestObjects(
  grants: readonly GrantConfig[],
  limits: ObjectLimits,
  storeOf: (name: string) => ObjectStore,
  observe: (observation: StoreObservation) => void,
): ObjectService {
  const granted = grantedStore(
    grants.map((grant) => ({ prefix: grant.prefix, store: withQuota(storeOf(grant.store), grant) })),
  );
  const { concurrency, waiting, memoryBytes } = limits;
  const store = observedStore(limitedStore(granted, { concurrency, waiting }), observe);
  return new ObjectService({ store, budgetBytes: memoryBytes });
}

function withQuota(store: ObjectStore, grant: GrantConfig): ObjectStore {
  const { maxBytes, maxObjects, prefix } = grant;
  if (maxBytes === undefined && maxObjects === undefined) return store;
  const quota = {
    maxBytes: maxBytes ?? Number.MAX_SAFE_INTEGER,
    maxObjects: maxObjects ?? Number.MAX_SAFE_INTEGER,
  };
  return quotaStore(store, prefix, quota);
}
