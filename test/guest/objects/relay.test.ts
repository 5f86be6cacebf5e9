import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after } from 'node:test';
import { connectRelay } from '../../../guest/objects/client.ts';
import { openDirectoryStore } from '../../../parent/objects/directory.ts';
import { ObjectService } from '../../../parent/objects/service.ts';
import { createMemoryStore } from '../../../shared/objects/memory.ts';
import { retryingStore } from '../../../shared/objects/retry.ts';
import type { ObjectStore } from '../../../shared/objects/store.ts';
import { streamPair } from '../../../shared/transport/pair.ts';
import { objectStoreConformance, type StoreUnderTest } from '../../conformance/object-store.ts';

const folders: string[] = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

function relayed(store: ObjectStore): StoreUnderTest {
  const service = new ObjectService({ store });
  const relay = connectRelay({
    async open() {
      const [guest, parent] = streamPair();
      void service.serve(parent);
      return guest;
    },
  });
  return {
    store: relay.store,
    async close() {
      relay.close();
    },
  };
}

objectStoreConformance('relay of memory', async () => relayed(createMemoryStore()));

objectStoreConformance('relay of memory, retrying', async () => {
  const { store, ...rest } = relayed(createMemoryStore());
  return { store: retryingStore(store), ...rest };
});

objectStoreConformance('relay of directory', async () => {
  const folder = await mkdtemp(`${tmpdir()}/postern-relay-`);
  folders.push(folder);
  return relayed(await openDirectoryStore(folder));
});
