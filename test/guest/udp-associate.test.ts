import assert from 'node:assert/strict';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { decodeSocksDatagram } from '../../guest/proxy/socks5-datagram.ts';
import { SOCKS_ASSOCIATIONS_MAX } from '../../guest/proxy/socks5-server.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { CAPABILITIES } from '../../shared/wire/control.ts';
import {
  encodeClose,
  encodeDatagram,
  encodeUndelivered,
  UdpFrameDecoder,
} from '../../shared/wire/datagram.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { encodeReply } from '../../shared/wire/reply.ts';
import { closed } from '../parent/agent.ts';
import { until } from '../parent/setup.ts';
import { connectTcp, type Fixture, startFixture } from './agent-fixture.ts';
import { socksRequest } from './socks-client.ts';

const POLICY =
  'egress: {allow: [{ip: [192.0.2.7, 192.0.2.8], ports: 53, protocol: udp}, {ip: 192.0.2.7, ports: 80}]}';
const TIMEOUT_MS = 10_000;
const REMOTE = { address: '192.0.2.7', port: 53 };

interface Client {
  readonly control: Socket;
  readonly received: string[];
  readonly reply: number;
  send(host: string, payload: string): void;
}

/** An agent whose parent hands every datagram of the guest to `onDatagram`. */
async function start(
  t: TestContext,
  onDatagram: (stream: Stream, payload: string, index: number) => void,
  capabilities = CAPABILITIES.tcp | CAPABILITIES.udp,
): Promise<Fixture> {
  const fixture = await startFixture({
    policy: POLICY,
    prepare: (parent) => {
      parent.capabilities = capabilities;
      parent.onAssociation = (stream) => {
        const decoder = new UdpFrameDecoder();
        let index = 0;
        stream.write(encodeReply('ok'));
        stream.on('data', (piece: Buffer) => {
          for (const frame of decoder.push(piece))
            if (frame.type === 'datagram') onDatagram(stream, frame.payload.toString(), index++);
        });
      };
    },
  });
  t.after(() => fixture.close());
  return fixture;
}

async function associate(t: TestContext, { socksPort }: Fixture): Promise<Client> {
  const udp: UdpSocket = createSocket('udp4').bind(0, '127.0.0.1');
  t.after(() => udp.close());
  await once(udp, 'listening');
  const received: string[] = [];
  udp.on('message', (bytes: Buffer) => {
    const { host = '?', payload = '' } = decodeSocksDatagram(bytes) ?? {};
    received.push(`${host} ${payload}`);
  });
  const control = await connectTcp(socksPort);
  control.on('error', () => {});
  control.write(socksRequest('0.0.0.0', 0, 3));
  await readExactly(control, 2, TIMEOUT_MS);
  const answer = await readExactly(control, 10, TIMEOUT_MS);
  const relayPort = answer.readUInt16BE(8);
  const send = (host: string, payload: string): void => {
    const header = Buffer.concat([Buffer.alloc(3), socksRequest(host, 53).subarray(6)]);
    udp.send(Buffer.concat([header, Buffer.from(payload)]), relayPort, '127.0.0.1');
  };
  return { control, received, reply: answer.readUInt8(1), send };
}

test('what the parent makes up from addresses that were not sent to reaches no client', async (t) => {
  const fixture = await start(t, (stream, payload) => {
    for (const address of ['192.0.2.8', '127.0.0.1', '192.0.2.7'])
      stream.write(encodeDatagram({ address, port: 53 }, Buffer.from(`${payload} from ${address}`)));
  });
  const client = await associate(t, fixture);
  client.send('192.0.2.7', 'one');
  await until(() => client.received.length === 1, 'the answer');
  client.send('192.0.2.8', 'two');
  await until(() => client.received.length === 3, 'the answers');
  assert.deepEqual(client.received, [
    '192.0.2.7 one from 192.0.2.7',
    '192.0.2.8 two from 192.0.2.8',
    '192.0.2.7 two from 192.0.2.7',
  ]);
});

test('datagrams to what the policy refuses never leave the guest', async (t) => {
  const left: string[] = [];
  const fixture = await start(t, (stream, payload) => {
    left.push(payload);
    stream.write(encodeDatagram(REMOTE, Buffer.from(payload)));
  });
  const client = await associate(t, fixture);
  for (const host of ['192.0.2.9', '127.0.0.1', '169.254.169.254', '::1', '224.0.0.1', '255.255.255.255'])
    client.send(host, `to ${host}`);
  client.send('secret.evil.example', 'to a name');
  client.send('192.0.2.7', 'allowed');
  await until(() => client.received.length === 1, 'the answer');
  assert.deepEqual(left, ['allowed']);
  const { refusals, totals } = fixture.agent.report();
  assert.equal(totals.refused, 7);
  assert.deepEqual(Object.keys(refusals), ['no-rule']);
});

test('an association that was idle is opened again; one that breaks ends for the client', async (t) => {
  const fixture = await start(t, (stream, payload) => {
    if (payload === 'idle') stream.end(encodeClose('timeout'));
    else if (payload === 'garbage') stream.write(Buffer.alloc(99, 0xff));
    else {
      stream.write(encodeUndelivered(REMOTE, 'denied'));
      stream.write(encodeDatagram(REMOTE, Buffer.from(payload)));
    }
  });
  const client = await associate(t, fixture);
  client.send('192.0.2.7', 'before');
  await until(() => client.received.length === 1, 'the first answer');
  client.send('192.0.2.7', 'idle');
  await until(() => fixture.agent.report().flows.count === 0, 'the association is gone');
  client.send('192.0.2.7', 'after');
  await until(() => client.received.length === 2, 'the second answer');
  assert.equal(fixture.parent.associationCount, 2);
  client.send('192.0.2.7', 'garbage');
  await closed(client.control);
  await until(() => fixture.agent.report().flows.count === 0, 'nothing is left');
});

test('a parent that ends the stream behind its ok ends it for the client', async (t) => {
  const fixture = await start(t, () => {});
  fixture.parent.onAssociation = (stream) => stream.end(encodeReply('ok'));
  for (let index = 0; index < 10; index += 1) await closed((await associate(t, fixture)).control);
  await until(() => fixture.agent.report().flows.count === 0, 'nothing is left');
});

test('so many clients at once, and no more', async (t) => {
  const fixture = await start(t, () => {});
  const clients = await Promise.all(
    Array.from({ length: SOCKS_ASSOCIATIONS_MAX }, () => associate(t, fixture)),
  );
  assert.ok(clients.every(({ reply }) => reply === 0));
  assert.equal((await associate(t, fixture)).reply, 1);
  assert.equal(fixture.agent.report().totals.failed, 1);
  clients[0]?.control.end();
  await until(() => fixture.agent.report().flows.count < SOCKS_ASSOCIATIONS_MAX, 'one has ended');
  assert.equal((await associate(t, fixture)).reply, 0);
});

test('a session that is lost ends it; a parent without datagrams is told at once', async (t) => {
  const fixture = await start(t, () => {});
  const client = await associate(t, fixture);
  fixture.parent.channel?.close('the test ends the session');
  await closed(client.control);
  await until(() => fixture.agent.report().flows.count === 0, 'nothing is left');
  const old = await start(t, () => {}, CAPABILITIES.tcp);
  assert.equal((await associate(t, old)).reply, 1);
  assert.deepEqual(old.agent.report().refusals, { ERR_WIRE_VERSION: 1 });
});
