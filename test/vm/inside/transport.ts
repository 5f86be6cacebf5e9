import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isPosternError } from '../../../shared/errors.ts';
import { configureBulk, lentFlowCount, startBulkThreads } from '../../../shared/flow/bulk-threads.ts';
import { CID_ANY } from '../../../shared/transport/address.ts';
import { connectStream, listenStream } from '../../../shared/transport/connect.ts';
import type { Stream } from '../../../shared/transport/transport.ts';
import { transportConformance } from '../../conformance/transport.ts';
import { chain, hashOf, readAll, writeMany } from '../../flow/chain.ts';
import { endpointsUnderTest } from '../../transport/kinds.ts';
import { requireVm } from './guard.ts';

requireVm();

/** VMADDR_CID_LOCAL: this machine itself. */
const CID_LOCAL = 1;
const PORT = 5000;
const NOBODY_PORT = 5001;

transportConformance('vsock', () =>
  endpointsUnderTest({
    listenAt: { kind: 'vsock', cid: CID_ANY, port: PORT },
    connectTo: { kind: 'vsock', cid: CID_LOCAL, port: PORT },
    nobody: { kind: 'vsock', cid: CID_LOCAL, port: NOBODY_PORT },
    peers: [
      { kind: 'vsock', cid: CID_LOCAL, port: PORT },
      { kind: 'vsock', cid: CID_LOCAL },
    ],
  }),
);

test('a second listener on a vsock port is refused', async () => {
  const address = { kind: 'vsock', cid: CID_ANY, port: 5002 } as const;
  const listener = await listenStream(address, (stream) => stream.destroy());
  const again = listenStream(address, (stream) => stream.destroy());
  await assert.rejects(again, (error) => isPosternError(error, 'ERR_TRANSPORT_IN_USE'));
  await listener.close();
  const free = await listenStream(address, (stream) => stream.destroy());
  await free.close();
});

test('a CID that no machine has is unreachable', async () => {
  const nowhere = connectStream({ kind: 'vsock', cid: 77, port: PORT });
  await assert.rejects(nowhere, (error) => isPosternError(error, 'ERR_TRANSPORT_UNREACHABLE'));
});

test('a thread runs a flow over vsock: every byte both ways, half-close, RST', async () => {
  configureBulk({ threadCount: 1, afterBytes: 0, leastFlows: 1 });
  await startBulkThreads();
  const port = 5003;
  const accepted: ((stream: Stream) => void)[] = [];
  const onStream = (stream: Stream): void => accepted.shift()?.(stream);
  const listener = await listenStream({ kind: 'vsock', cid: CID_ANY, port }, onStream);
  const tunnelPair = async (): Promise<[Stream, Stream]> => {
    const far = new Promise<Stream>((resolve) => accepted.push(resolve));
    return [await connectStream({ kind: 'vsock', cid: CID_LOCAL, port }), await far];
  };
  const bulk = await chain({ tunnelPair });
  assert.equal(lentFlowCount(), 2);
  const up = writeMany(bulk.client, 8 << 20);
  assert.equal(await hashOf(bulk.server), await up);
  const down = writeMany(bulk.server, 8 << 20);
  assert.equal(await hashOf(bulk.client), await down);
  assert.deepEqual([(await bulk.nearDone).end, (await bulk.farDone).end], ['closed', 'closed']);
  const reset = await chain({ tunnelPair });
  reset.server.write('x');
  reset.server.resetAndDestroy();
  await assert.rejects(readAll(reset.client), { code: 'ECONNRESET' });
  assert.deepEqual([(await reset.nearDone).end, (await reset.farDone).end], ['reset-peer', 'reset-local']);
  assert.equal(lentFlowCount(), 0);
  await listener.close();
});
