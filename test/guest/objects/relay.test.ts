import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after } from 'node:test';
import type { Relay } from '../../../guest/objects/client.ts';
import { openDirectoryStore } from '../../../parent/objects/directory.ts';
import { createMemoryStore } from '../../../shared/objects/memory.ts';
import { retryingStore } from '../../../shared/objects/retry.ts';
import { objectStoreConformance, type StoreUnderTest } from '../../conformance/object-store.ts';
import { relayed } from '../../objects/relayed.ts';

const folders: string[] = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

function opened({ store, close }: Relay): StoreUnderTest {
  return { store, close: async () => close() };
}

objectStoreConformance('relay of memory', async () => opened(relayed(createMemoryStore())));

objectStoreConformance('relay of memory, retrying', async () => {
  const relay = relayed(createMemoryStore());
  return opened({ ...relay, store: retryingStore(relay.store) });
});

objectStoreConformance('relay of directory', async () => {
  const folder = await mkdtemp(`${tmpdir()}/postern-relay-`);
  folders.push(folder);
  return opened(relayed(await openDirectoryStore(folder)));
});
