import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import {
  type DatagramUpstream,
  datagramUpstream,
  QUESTIONS_PER_PORT,
} from '../../guest/dns/upstream/datagrams.ts';
import { answersQuery, encodeQuery } from '../../guest/dns/upstream/query.ts';
import { type OpenPort, STRAYS_MAX } from '../../guest/dns/upstream/question-port.ts';
import type { AssociationEvents } from '../../guest/flow/association.ts';
import { PosternError } from '../../shared/errors.ts';
import { addressRdata } from './encode.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

const SERVER = { address: '192.0.2.53', port: 53 };
const WWW = DomainName.parse('www.example.');
const never = (): AbortSignal => new AbortController().signal;
const question = (): Buffer => encodeQuery(WWW, TYPE.A);

/** Ports of a made-up parent: `onQuery` sees each datagram, and answers by the port's events as it likes. */
class Ports {
  opened = 0;
  closed = 0;
  readonly queries: Buffer[] = [];
  readonly world = new TestWorld(
    new TestZone('.'),
    new TestZone('example.').add('www.example.', TYPE.A, addressRdata('192.0.2.1')),
  );
  readonly upstream: DatagramUpstream;
  onQuery: (query: Buffer, events: AssociationEvents, port: number) => unknown;

  constructor() {
    this.onQuery = (query, events) => this.answer(query, events);
    const open: OpenPort = async (server, _signal, events) => {
      this.opened += 1;
      const port = this.opened;
      return {
        send: (remote, payload) => {
          assert.deepEqual(remote, server);
          this.queries.push(Buffer.from(payload));
          this.onQuery(payload, events, port);
          return true;
        },
        close: () => {
          this.closed += 1;
        },
      };
    };
    this.upstream = datagramUpstream(SERVER, open);
  }

  async answer(query: Buffer, events: AssociationEvents): Promise<void> {
    events.onDatagram(SERVER, await this.world.exchange(query));
  }
}

test('asks from few ports, each for a few questions, with ids of their own', async () => {
  const ports = new Ports();
  const queries = Array.from({ length: 3 * QUESTIONS_PER_PORT }, question);
  // The same id at the same time: on one port they must differ.
  for (const query of queries.slice(0, QUESTIONS_PER_PORT)) query.writeUInt16BE(7, 0);
  const answers = await Promise.all(
    queries.map((query) => ports.upstream.exchange(query, { signal: never() })),
  );
  for (const [index, answer] of answers.entries())
    assert.ok(answersQuery(answer, queries[index] ?? Buffer.alloc(0)), `answer ${index} has its own id`);
  assert.equal(ports.opened, 3);
  assert.equal(
    new Set(ports.queries.slice(0, QUESTIONS_PER_PORT).map((query) => query.readUInt16BE(0))).size,
    16,
  );
  ports.upstream.close();
  assert.equal(ports.closed, 3);
});

test('what comes from elsewhere, with another id or to another question is waited over, and the port is left', async () => {
  const ports = new Ports();
  ports.onQuery = async (query, events) => {
    const forged = Buffer.from(await ports.world.exchange(query));
    events.onDatagram({ ...SERVER, address: '192.0.2.54' }, forged);
    events.onDatagram({ ...SERVER, port: 5353 }, forged);
    const wrongId = Buffer.from(forged);
    wrongId.writeUInt16BE(query.readUInt16BE(0) ^ 1, 0);
    events.onDatagram(SERVER, wrongId);
    const wrongQuestion = Buffer.from(forged);
    wrongQuestion.write('xxx', 13);
    events.onDatagram(SERVER, wrongQuestion);
    events.onDatagram(SERVER, query);
    events.onDatagram(SERVER, Buffer.alloc(1));
    await ports.answer(query, events);
  };
  for (let count = 1; count <= 2; count += 1) {
    const query = question();
    assert.ok(answersQuery(await ports.upstream.exchange(query, { signal: never() }), query));
    assert.equal(ports.opened, count);
  }
  ports.upstream.close();
});

test('a flood of guesses is given up, and so is the port', async () => {
  const ports = new Ports();
  ports.onQuery = (query, events) => {
    for (let count = 0; count <= STRAYS_MAX; count += 1) events.onDatagram(SERVER, query);
  };
  await assert.rejects(ports.upstream.exchange(question(), { signal: never() }), {
    code: 'ERR_DNS_UPSTREAM',
  });
  assert.equal(ports.closed, 1);
});

test('what is lost once is asked again; what is lost for good ends with the signal', async () => {
  const ports = new Ports();
  ports.onQuery = (query, events) => ports.queries.length > 1 && ports.answer(query, events);
  const query = question();
  assert.ok(answersQuery(await ports.upstream.exchange(query, { signal: never() }), query));
  assert.equal(ports.queries.length, 2);
  assert.deepEqual(ports.queries[0], ports.queries[1]);
  ports.onQuery = () => {};
  const signal = AbortSignal.timeout(20);
  await assert.rejects(ports.upstream.exchange(question(), { signal }), { code: 'ERR_DNS_TIMEOUT' });
  ports.upstream.close();
});

test('a parent that says it did not send is believed at once, of this server only', async () => {
  const ports = new Ports();
  ports.onQuery = (_query, events) => {
    events.onUndelivered({ address: '192.0.2.54', port: 53 }, 'unreachable');
    events.onUndelivered(SERVER, 'denied');
  };
  await assert.rejects(ports.upstream.exchange(question(), { signal: never() }), /did not send it: denied/);
});

test('an association that ends ends its questions; one that was closed here asks none any more', async () => {
  const ports = new Ports();
  ports.onQuery = (_query, events) => events.onClosed(new PosternError('ERR_SESSION_LOST', 'gone'));
  await assert.rejects(ports.upstream.exchange(question(), { signal: never() }), /gone/);
  ports.upstream.close();
  await assert.rejects(ports.upstream.exchange(question(), { signal: never() }), /the agent stops/);
  assert.equal(ports.opened, 1);
});

test('a parent that gives no ports is not asked for one with every question', async () => {
  let opened = 0;
  const upstream = datagramUpstream(SERVER, async () => {
    opened += 1;
    throw new PosternError('ERR_FLOW_LIMIT', 'no more');
  });
  for (let count = 0; count < 5; count += 1)
    await assert.rejects(upstream.exchange(question(), { signal: never() }), {
      code: 'ERR_DNS_UPSTREAM',
      message: '192.0.2.53:53 over UDP: no more',
    });
  assert.equal(opened, 1);
});

test('a question that is given up while its port is opened leaves nothing behind', async () => {
  let aborted = false;
  const upstream = datagramUpstream(SERVER, (_server, signal) => {
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        aborted = true;
        reject(new Error('aborted'));
      });
    });
  });
  await assert.rejects(upstream.exchange(question(), { signal: AbortSignal.timeout(10) }), {
    code: 'ERR_DNS_TIMEOUT',
  });
  upstream.close();
  assert.ok(aborted);
});
