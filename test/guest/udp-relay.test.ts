import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { Gate } from '../../guest/flow/gate.ts';
import type { Tunnel } from '../../guest/flow/tunnel.ts';
import { encodeSocksDatagram } from '../../guest/proxy/socks5-datagram.ts';
import { UdpRelay } from '../../guest/proxy/udp-relay.ts';
import { streamPair } from '../../shared/transport/pair.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { UdpFrameDecoder } from '../../shared/wire/datagram.ts';
import { until } from '../parent/setup.ts';

const REMOTE = { address: '192.0.2.7', port: 53 };

/** A gate that allows everything, and gives streams when the test says so. */
class TestGate {
  readonly farEnds: Stream[] = [];
  readonly payloads: string[] = [];
  readonly #waiting: (() => void)[] = [];
  asked = 0;
  routed = 0;

  async associate(): Promise<Tunnel> {
    this.asked += 1;
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    const [near, far] = streamPair();
    for (const stream of [near, far]) stream.on('error', () => {});
    const decoder = new UdpFrameDecoder();
    far.on('data', (piece: Buffer) => {
      for (const frame of decoder.push(piece))
        if (frame.type === 'datagram') this.payloads.push(frame.payload.toString());
    });
    this.farEnds.push(far);
    return { stream: near } as unknown as Tunnel;
  }

  async routeDatagrams(): Promise<readonly string[]> {
    this.routed += 1;
    return [REMOTE.address];
  }

  open(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** The server's end of a client's control connection. */
async function controlOf(t: TestContext, host: string): Promise<Socket> {
  const server = createServer().listen(0, host);
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const client = connect(address.port, host);
  const [control] = (await once(server, 'connection')) as [Socket];
  t.after(() => {
    server.close();
    client.destroy();
    control.destroy();
  });
  return control;
}

test('what a client sends before it is told that it may opens no second association', async (t) => {
  const gate = new TestGate();
  const control = await controlOf(t, '127.0.0.1');
  const client = createSocket('udp4');
  t.after(() => client.close());
  const relay = new UdpRelay({
    gate: gate as unknown as Gate,
    control,
    clientPort: 0,
    onClosed: () => {},
  });
  const { port } = relay.endpoint;
  const opening = relay.open();
  client.send(encodeSocksDatagram(REMOTE, Buffer.from('early')), port, '127.0.0.1');
  await until(() => gate.routed === 1, 'the early one is decided');
  gate.open();
  await opening;
  client.send(encodeSocksDatagram(REMOTE, Buffer.from('in time')), port, '127.0.0.1');
  await until(() => gate.payloads.includes('in time'), 'the next one goes');
  assert.equal(gate.asked, 1);
  relay.close();
  await until(() => gate.farEnds.every((far) => far.readableEnded), 'the parent hears of the end');
});

test('the longest datagram that IPv6 carries to this machine is dropped where no frame can', async (t) => {
  const gate = new TestGate();
  const control = await controlOf(t, '::1');
  const client = createSocket('udp6');
  t.after(() => client.close());
  const relay = new UdpRelay({ gate: gate as unknown as Gate, control, clientPort: 0, onClosed: () => {} });
  const opening = relay.open();
  gate.open();
  await opening;
  const { port } = relay.endpoint;
  // One so long would not wait for a decision: it is made before.
  client.send(encodeSocksDatagram(REMOTE, Buffer.from('before')), port, '::1');
  await until(() => gate.payloads.length === 1, 'the first one goes');
  // 65,535 octets less the header of UDP; ten of the rest are of SOCKS.
  client.send(encodeSocksDatagram(REMOTE, Buffer.alloc(65_527 - 10)), port, '::1');
  client.send(encodeSocksDatagram(REMOTE, Buffer.from('after')), port, '::1');
  await until(() => gate.payloads.length > 1, 'the last one goes');
  assert.deepEqual(gate.payloads, ['before', 'after']);
  relay.close();
});
