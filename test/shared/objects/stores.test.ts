import { checkedStore } from '../../../shared/objects/checked.ts';
import { FaultyStore } from '../../../shared/objects/fault.ts';
import { grantedStore } from '../../../shared/objects/grant.ts';
import { limitedStore } from '../../../shared/objects/limit.ts';
import { createMemoryStore } from '../../../shared/objects/memory.ts';
import { observedStore } from '../../../shared/objects/observe.ts';
import { quotaStore } from '../../../shared/objects/quota.ts';
import { retryingStore } from '../../../shared/objects/retry.ts';
import { objectStoreConformance } from '../../conformance/object-store.ts';

const GIB = 2 ** 30;
const SEED = Number(process.env['SEED'] ?? 20_261);

objectStoreConformance('memory', async () => ({ store: createMemoryStore() }));

objectStoreConformance('memory, retrying', async () => ({ store: retryingStore(createMemoryStore()) }));

objectStoreConformance('memory, limited', async () => ({
  store: limitedStore(createMemoryStore(), { concurrency: 3, waiting: 100 }),
}));

objectStoreConformance('memory, observed', async () => ({
  store: observedStore(createMemoryStore(), () => {}),
}));

objectStoreConformance('memory, granted by prefix', async () => ({
  store: grantedStore([
    { prefix: 'guest-a/', store: createMemoryStore() },
    { prefix: 'guest-b/', store: createMemoryStore() },
  ]),
  prefix: 'guest-b/',
}));

objectStoreConformance('memory, with a quota', async () => ({
  store: quotaStore(createMemoryStore(), 'q/', { maxBytes: GIB, maxObjects: 10_000 }),
  prefix: 'q/',
}));

objectStoreConformance(`memory, retrying over faults, seed ${SEED}`, async () => {
  const faulty = new FaultyStore(createMemoryStore(), {
    seed: SEED,
    maxDelayMs: 3,
    rates: {
      'put-conflict': 0.1,
      'put-applied-error': 0.1,
      'put-error': 0.1,
      'get-cut': 0.2,
      'slow-down': 0.2,
      delay: 0.2,
    },
  });
  return { store: retryingStore(checkedStore(faulty)) };
});
