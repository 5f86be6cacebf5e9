import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { Stream } from '../../shared/transport/transport.ts';
import { CAPABILITIES } from '../../shared/wire/control.ts';
import {
  encodeClose,
  encodeDatagram,
  encodeUndelivered,
  type UdpFrame,
  UdpFrameDecoder,
} from '../../shared/wire/datagram.ts';
import { encodeReply } from '../../shared/wire/reply.ts';
import type { TestWorld } from '../dns/world.ts';
import { until } from '../parent/setup.ts';
import { RESOLVER, type SignedFixture, startSigned } from './signed-world.ts';
import { socksConnect } from './socks-client.ts';

const POLICY = 'egress: {allow: [{fqdn: "*.example", ports: 80, dnssec: require}]}';
const REMOTE = { address: RESOLVER, port: 53 };
const ALL = CAPABILITIES.tcp | CAPABILITIES.inbound | CAPABILITIES.udp;

type Question = Extract<UdpFrame, { type: 'datagram' }>;

/** Answers ok, then hands on every question. */
function answering(onQuestion: (question: Question, stream: Stream) => unknown): (stream: Stream) => void {
  return (stream) => {
    const decoder = new UdpFrameDecoder();
    stream.write(encodeReply('ok'));
    stream.on('data', (piece: Buffer) => {
      for (const frame of decoder.push(piece)) if (frame.type === 'datagram') void onQuestion(frame, stream);
    });
  };
}

async function start(
  t: TestContext,
  onAssociation: ((stream: Stream) => void) | undefined,
  capabilities = ALL,
): Promise<SignedFixture> {
  const fixture = await startSigned({
    policy: POLICY,
    resolvers: [`udp:${RESOLVER}`],
    prepare: (parent) => {
      parent.capabilities = capabilities;
      parent.onAssociation = onAssociation;
    },
  });
  t.after(() => fixture.close());
  return fixture;
}

/** Dials a name, which has to be resolved first. */
async function dial({ socksPort }: SignedFixture): Promise<number> {
  const { socket, reply } = await socksConnect(socksPort, 'www.example', 80);
  socket.destroy();
  return reply;
}

const overTcp = ({ parent }: SignedFixture): boolean =>
  parent.opens.some(({ addresses }) => addresses[0] === RESOLVER);

describe('questions over UDP', () => {
  it('go to the resolver alone, and an honest parent is enough', async (t) => {
    let world: TestWorld | undefined;
    const remotes = new Set<string>();
    const answer = answering(async ({ remote, payload }, stream) => {
      remotes.add(`${remote.address} ${remote.port}`);
      if (world !== undefined) stream.write(encodeDatagram(remote, await world.exchange(payload)));
    });
    const fixture = await start(t, answer);
    world = fixture.world;
    assert.equal(fixture.parent.hellos[0]?.capabilities, ALL & ~CAPABILITIES.inbound);
    assert.equal(await dial(fixture), 0);
    assert.deepEqual([...remotes], [`${RESOLVER} 53`]);
    assert.ok(!overTcp(fixture));
  });

  it('are not even tried with a parent that carries no datagrams', async (t) => {
    const fixture = await start(t, undefined, CAPABILITIES.tcp);
    assert.equal(await dial(fixture), 0);
    assert.equal(fixture.parent.associationCount, 0);
    assert.ok(overTcp(fixture));
  });
});

describe('a parent that carries datagrams badly', () => {
  const forged = (question: Buffer): Buffer => {
    const answer = Buffer.from(question);
    answer.writeUInt8(answer.readUInt8(2) | 0x80, 2);
    return answer;
  };
  const lies: [name: string, lie: (stream: Stream) => void][] = [
    ['refuses them', (stream) => stream.end(encodeReply('limit'))],
    ['says nothing and ends', (stream) => stream.end()],
    ['says nothing and closes', (stream) => stream.destroy()],
    ['answers with no reply', (stream) => stream.write('HTTP/1.1 200 OK\r\n\r\n')],
    [
      'sends garbage behind ok',
      (stream) => stream.write(Buffer.concat([encodeReply('ok'), Buffer.alloc(99, 0xff)])),
    ],
    ['announces a frame over the limit', (stream) => stream.write(Buffer.from('520000000100ffff', 'hex'))],
    ['closes at once', (stream) => stream.write(Buffer.concat([encodeReply('ok'), encodeClose('limit')]))],
    ['ends with the first question', answering((_question, stream) => stream.end())],
    [
      'says that it did not send',
      answering((_question, stream) => stream.write(encodeUndelivered(REMOTE, 'denied'))),
    ],
    [
      'answers from other addresses, without end',
      answering(({ payload }, stream) => {
        const frame = encodeDatagram({ address: '192.0.2.54', port: 53 }, forged(payload));
        const flood = setInterval(() => stream.writableLength < 1 << 16 && stream.write(frame), 0);
        stream.on('close', () => clearInterval(flood));
      }),
    ],
    [
      'answers with empty messages',
      answering(({ payload }, stream) => stream.write(encodeDatagram(REMOTE, forged(payload)))),
    ],
    [
      'sends bytes of no DNS',
      answering((_question, stream) => {
        for (let count = 0; count < 100; count += 1)
          stream.write(encodeDatagram(REMOTE, Buffer.alloc(count)));
      }),
    ],
    [
      'sends half a frame and stalls',
      answering((_question, stream) => stream.write(Buffer.from('0100fff604c000023500', 'hex'))),
    ],
    ['keeps silent', answering(() => {})],
    ['does not even answer the stream', () => {}],
  ];
  for (const [name, lie] of lies) {
    it(`${name}: TCP is asked, the name resolves, nothing is left behind`, async (t) => {
      const fixture = await start(t, lie);
      assert.equal(await dial(fixture), 0);
      assert.ok(overTcp(fixture));
      await fixture.agent.close(0);
      await until(() => fixture.agent.report().flows.count === 0, 'no flow is left');
    });
  }
});
