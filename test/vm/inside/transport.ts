import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isPosternError } from '../../../shared/errors.ts';
import { CID_ANY } from '../../../shared/transport/address.ts';
import { connectStream, listenStream } from '../../../shared/transport/connect.ts';
import { transportConformance } from '../../conformance/transport.ts';
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
