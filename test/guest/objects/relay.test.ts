import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after } from 'node:test';
import { connectRelay, type Relay } from '../../../guest/objects/client.ts';
import { openDirectoryStore } from '../../../parent/objects/directory.ts';
import { ObjectService } from '../../../parent/objects/service.ts';
import { createMemoryStore } from '../../../shared/objects/memory.ts';
import { retryingStore } from '../../../shared/objects/retry.ts';
import { connectStream, listenStream } from '../../../shared/transport/connect.ts';
import {
  decodeStreamHeader,
  encodeStreamHeader,
  HEADER_BYTES,
  KEY_BYTES,
  proofHolds,
} from '../../../shared/wire/header.ts';
import { readExactly } from '../../../shared/wire/read.ts';
import { decodeReply, encodeReply, REPLY_BYTES } from '../../../shared/wire/reply.ts';
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

// The way it really comes: a header that proves the session, a reply, and writes that are capped on the parent's side.
objectStoreConformance('relay of memory over a hybrid cable, behind header and reply', async () => {
  const folder = await mkdtemp(`${tmpdir()}/postern-relay-`);
  folders.push(folder);
  const key = Buffer.alloc(KEY_BYTES, 7);
  const service = new ObjectService({ store: createMemoryStore() });
  const address = { kind: 'hybrid', path: `${folder}/v.sock`, port: 5000 } as const;
  const listener = await listenStream(address, (stream) => {
    stream.on('error', () => {});
    void readExactly(stream, HEADER_BYTES, 5000).then((header) => {
      assert.equal(decodeStreamHeader(header).kind, 'object');
      assert.ok(proofHolds(key, header, Buffer.alloc(0)));
      stream.write(encodeReply('ok'));
      return service.serve(stream);
    });
  });
  const relay = connectRelay({
    async open() {
      const stream = await connectStream({ kind: 'unix', path: `${address.path}_${address.port}` });
      stream.write(encodeStreamHeader('object', 2, Buffer.alloc(0), key));
      assert.equal(decodeReply(await readExactly(stream, REPLY_BYTES, 5000)).status, 'ok');
      return stream;
    },
  });
  return {
    store: relay.store,
    async close() {
      relay.close();
      service.close();
      await listener.close();
    },
  };
});
