import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ServedOutcome } from '../../../parent/objects/served-stream.ts';
import { ObjectService, type ObjectServiceOptions } from '../../../parent/objects/service.ts';
import { VirtualClock } from '../../../shared/objects/clock.ts';
import { FaultyStore } from '../../../shared/objects/fault.ts';
import { createMemoryStore } from '../../../shared/objects/memory.ts';
import { OBJECT_MAX_BYTES, type ObjectStore } from '../../../shared/objects/store.ts';
import { streamPair } from '../../../shared/transport/pair.ts';
import type { Stream } from '../../../shared/transport/transport.ts';
import {
  encodeDataHeader,
  encodeObjectFrame,
  type ObjectFrame,
  type ObjectReply,
  type ObjectRequest,
} from '../../../shared/wire/object.ts';
import { ObjectFrameDecoder } from '../../../shared/wire/object-decoder.ts';
import { pattern } from '../../conformance/object-store.ts';

/** A client of the test's making, that says what it likes and hears everything. */
class Guest {
  readonly stream: Stream;
  readonly outcome: Promise<ServedOutcome>;
  readonly closed: Promise<void>;
  readonly heard: ObjectFrame[] = [];
  readonly dataBytes = new Map<number, number>();
  #wake = Promise.withResolvers<void>();

  constructor(service: ObjectService) {
    const [client, served] = streamPair();
    this.stream = client;
    this.outcome = service.serve(served);
    client.on('error', () => {});
    this.closed = new Promise((resolve) => {
      client.once('close', () => {
        this.#stir();
        resolve();
      });
    });
    client.once('end', () => client.end());
    const decoder = new ObjectFrameDecoder({
      frame: (frame) => {
        this.heard.push(frame);
        this.#stir();
      },
      data: (id, piece) => {
        this.dataBytes.set(id, (this.dataBytes.get(id) ?? 0) + piece.length);
        this.#stir();
      },
    });
    client.on('data', (piece: Buffer) => decoder.push(piece));
  }

  #stir(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }

  hello(): this {
    return this.say({ type: 'hello', minVersion: 1, maxVersion: 1 });
  }

  say(frame: ObjectFrame): this {
    this.stream.write(encodeObjectFrame(frame));
    return this;
  }

  ask(requestId: number, request: ObjectRequest): this {
    return this.say({ type: 'request', requestId, request });
  }

  data(requestId: number, bytes: Buffer): this {
    for (let at = 0; at < bytes.length; at += 65_536) {
      const piece = bytes.subarray(at, at + 65_536);
      this.stream.write(encodeDataHeader(requestId, piece.length));
      this.stream.write(piece);
    }
    return this;
  }

  /** Waits until something has been heard, or the stream is closed. */
  async until(met: () => boolean): Promise<void> {
    while (!met()) {
      assert.ok(!this.stream.destroyed, `closed: ${JSON.stringify(this.heard)}`);
      await this.#wake.promise;
    }
  }

  async replyTo(requestId: number): Promise<ObjectReply> {
    const find = () => this.heard.find((frame) => frame.type === 'reply' && frame.requestId === requestId);
    await this.until(() => find() !== undefined);
    const frame = find();
    assert.ok(frame?.type === 'reply');
    return frame.reply;
  }

  hasGrant(requestId: number): boolean {
    return this.heard.some((frame) => frame.type === 'grant' && frame.requestId === requestId);
  }
}

function newService(options: Partial<ObjectServiceOptions> = {}): ObjectService {
  return new ObjectService({ store: createMemoryStore(), ...options });
}

/** A store whose calls wait until they are told. */
function heldStore(): { store: ObjectStore; release(): void; callCount(): number } {
  const inner = createMemoryStore();
  const gate = Promise.withResolvers<void>();
  let count = 0;
  const held = async <T>(run: () => Promise<T>): Promise<T> => {
    count += 1;
    await gate.promise;
    return run();
  };
  const store: ObjectStore = {
    ...inner,
    get: (key, options) => held(() => inner.get(key, options)),
    putIfAbsent: (key, bytes, options) => held(() => inner.putIfAbsent(key, bytes, options)),
  };
  return { store, release: () => gate.resolve(), callCount: () => count };
}

describe('object service', () => {
  const violations: readonly [name: string, (guest: Guest) => unknown][] = [
    ['a request before HELLO', (guest) => guest.ask(1, { op: 'head', key: 'a' })],
    ['a frame of the server’s', (guest) => guest.hello().say({ type: 'grant', requestId: 1 })],
    ['a second HELLO', (guest) => guest.hello().hello()],
    ['DATA for nobody', (guest) => guest.hello().data(7, Buffer.from('x'))],
    [
      'more DATA than announced',
      (guest) => guest.hello().ask(1, { op: 'put', key: 'a', sizeBytes: 2 }).data(1, Buffer.from('abc')),
    ],
    [
      'DATA without a GRANT',
      (guest) => guest.hello().ask(1, { op: 'put', key: 'a', sizeBytes: 70_000 }).data(1, Buffer.alloc(100)),
    ],
    [
      'a request id again',
      (guest) => guest.hello().ask(5, { op: 'head', key: 'a' }).ask(5, { op: 'head', key: 'a' }),
    ],
    [
      'a request id that falls',
      (guest) => guest.hello().ask(5, { op: 'head', key: 'a' }).ask(4, { op: 'head', key: 'a' }),
    ],
    ['garbage', (guest) => guest.stream.write(Buffer.alloc(64, 0xee))],
    ['an end inside a frame', (guest) => guest.stream.end(Buffer.from([1, 0, 0]))],
  ];
  for (const [name, behave] of violations) {
    it(`${name}: BYE, and the stream is closed`, async () => {
      const service = newService();
      const guest = new Guest(service);
      behave(guest);
      const { violation } = await guest.outcome;
      assert.ok(violation, 'no violation');
      assert.equal(service.usedBytes, 0);
      assert.equal(service.streamCount, 0);
      await guest.closed;
      assert.ok(guest.heard.some((frame) => frame.type === 'bye'));
    });
  }

  it('says which version it speaks, and which not', async () => {
    const guest = new Guest(newService({ maxRequests: 9 })).say({
      type: 'hello',
      minVersion: 1,
      maxVersion: 7,
    });
    await guest.until(() => guest.heard.length > 0);
    assert.deepEqual(guest.heard, [{ type: 'welcome', version: 1, maxRequests: 9 }]);
    guest.stream.destroy();
    const newer = new Guest(newService()).say({ type: 'hello', minVersion: 2, maxVersion: 7 });
    await newer.outcome;
    assert.equal(newer.heard[0]?.type === 'bye' && newer.heard[0].reason, 'version');
  });

  it('closes a stream that does not greet, and one whose body does not come', async () => {
    const silent = new Guest(newService({ helloTimeoutMs: 20 }));
    assert.match((await silent.outcome).violation ?? '', /HELLO/);
    const service = newService({ bodyTimeoutMs: 20 });
    const slow = new Guest(service).hello().ask(1, { op: 'put', key: 'a', sizeBytes: 100_000 });
    assert.match((await slow.outcome).violation ?? '', /body/);
    assert.equal(service.usedBytes, 0);
  });

  it('refuses more streams than it allows', async () => {
    const service = newService({ maxStreams: 2 });
    const guests = [new Guest(service), new Guest(service)];
    const third = new Guest(service);
    assert.match((await third.outcome).violation ?? '', /streams/);
    for (const guest of guests) guest.stream.destroy();
    await Promise.all(guests.map(({ outcome }) => outcome));
    const fourth = new Guest(service).hello();
    await fourth.until(() => fourth.heard.length > 0);
    fourth.stream.destroy();
  });

  it('closes a stream with more requests than it allows', async () => {
    const { store, release } = heldStore();
    const guest = new Guest(newService({ store, maxRequests: 3 })).hello();
    for (let id = 1; id <= 4; id += 1) guest.ask(id, { op: 'get', key: 'a' });
    await guest.until(() => guest.heard.some((frame) => frame.type === 'bye'));
    release();
    assert.match((await guest.outcome).violation ?? '', /requests/);
  });

  it('grants bodies only while their memory lasts, and in turn', async () => {
    const { store, release } = heldStore();
    const service = newService({ store, budgetBytes: OBJECT_MAX_BYTES });
    const guest = new Guest(service).hello();
    const sizeBytes = 10 * 1024 * 1024;
    for (let id = 1; id <= 2; id += 1) guest.ask(id, { op: 'put', key: `k${id}`, sizeBytes });
    await guest.until(() => guest.hasGrant(1));
    guest.data(1, Buffer.alloc(sizeBytes));
    assert.ok(!guest.hasGrant(2));
    assert.ok(service.usedBytes <= OBJECT_MAX_BYTES);
    release();
    assert.deepEqual(await guest.replyTo(1), { status: 'created' });
    await guest.until(() => guest.hasGrant(2));
    guest.stream.destroy();
    await guest.outcome;
    assert.equal(service.usedBytes, 0);
  });

  it('keeps no more than its budget for a guest that does not read', async () => {
    const budgetBytes = OBJECT_MAX_BYTES;
    const store = createMemoryStore();
    await store.putIfAbsent('a', pattern(4_000_000, 1));
    const service = newService({ store, budgetBytes });
    const guest = new Guest(service).hello();
    guest.stream.pause();
    const range = { offset: 0, length: 4_000_000 };
    for (let id = 1; id <= 30; id += 1) guest.ask(id, { op: 'get', key: 'a', range });
    while (service.usedBytes === 0) await new Promise((resolve) => setImmediate(resolve));
    for (let turn = 0; turn < 50; turn += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      assert.ok(service.usedBytes <= budgetBytes);
    }
    guest.stream.resume();
    for (let id = 1; id <= 30; id += 1) {
      await guest.until(() => guest.dataBytes.get(id) === 4_000_000);
    }
    guest.stream.destroy();
    await guest.outcome;
    assert.equal(service.usedBytes, 0);
  });

  it('answers a small GET while a large one is on its way', async () => {
    const store = createMemoryStore();
    await store.putIfAbsent('large', pattern(OBJECT_MAX_BYTES, 1));
    await store.putIfAbsent('small', pattern(4096, 1));
    const guest = new Guest(newService({ store })).hello();
    guest.ask(1, { op: 'get', key: 'large' });
    await guest.until(() => (guest.dataBytes.get(1) ?? 0) > 0);
    guest.ask(2, { op: 'get', key: 'small', range: { offset: 0, length: 4096 } });
    await guest.until(() => guest.dataBytes.get(2) === 4096);
    assert.ok((guest.dataBytes.get(1) ?? 0) < OBJECT_MAX_BYTES);
    guest.stream.destroy();
    await guest.outcome;
  });

  it('stops a body that is cancelled, and says so; later frames find the stream in order', async () => {
    const store = createMemoryStore();
    await store.putIfAbsent('large', pattern(OBJECT_MAX_BYTES, 1));
    const service = newService({ store });
    const guest = new Guest(service).hello().ask(1, { op: 'get', key: 'large' });
    await guest.until(() => (guest.dataBytes.get(1) ?? 0) > 0);
    guest.say({ type: 'cancel', requestId: 1 });
    const cancelled = () =>
      guest.heard.some((frame) => frame.type === 'reply' && frame.reply.status === 'cancelled');
    await guest.until(cancelled);
    assert.ok((guest.dataBytes.get(1) ?? 0) < OBJECT_MAX_BYTES);
    guest.say({ type: 'cancel', requestId: 1 }).ask(2, { op: 'head', key: 'large' });
    assert.deepEqual(await guest.replyTo(2), { status: 'size', sizeBytes: OBJECT_MAX_BYTES });
    assert.equal(service.usedBytes, 0);
    guest.stream.destroy();
    await guest.outcome;
  });

  it('does not put what was cancelled before it was whole', async () => {
    const store = createMemoryStore();
    const guest = new Guest(newService({ store })).hello();
    guest
      .ask(1, { op: 'put', key: 'a', sizeBytes: 3 })
      .data(1, Buffer.from('ab'))
      .say({ type: 'cancel', requestId: 1 });
    assert.deepEqual(await guest.replyTo(1), { status: 'cancelled', detail: '' });
    guest.ask(2, { op: 'put', key: 'b', sizeBytes: 100_000 });
    await guest.until(() => guest.hasGrant(2));
    guest.say({ type: 'cancel', requestId: 2 });
    assert.equal((await guest.replyTo(2)).status, 'cancelled');
    assert.equal(await store.head('a'), undefined);
    assert.equal(await store.head('b'), undefined);
    guest.stream.destroy();
    await guest.outcome;
  });

  it('finishes a PUT whose guest is gone, once it has all of it', async () => {
    const { store, release, callCount } = heldStore();
    const service = newService({ store });
    const guest = new Guest(service)
      .hello()
      .ask(1, { op: 'put', key: 'a', sizeBytes: 3 })
      .data(1, Buffer.from('abc'));
    while (callCount() === 0) await new Promise((resolve) => setImmediate(resolve));
    guest.stream.destroy();
    release();
    await guest.outcome;
    assert.equal(String(await store.get('a')), 'abc');
  });

  it('carries every failure of the store as what it is', async () => {
    const clock = new VirtualClock();
    const faulty = new FaultyStore(createMemoryStore(), { seed: 1, rates: { 'put-error': 1 }, clock });
    const guest = new Guest(newService({ store: faulty })).hello();
    guest.ask(1, { op: 'put', key: 'a', sizeBytes: 0 });
    assert.equal((await guest.replyTo(1)).status, 'ambiguous');
    faulty.setUnreachable(1);
    guest.ask(2, { op: 'get', key: 'a' });
    assert.equal((await guest.replyTo(2)).status, 'unavailable');
    guest.ask(3, { op: 'get', key: 'a', range: { offset: 0, length: 2 ** 32 - 1 } });
    assert.equal((await guest.replyTo(3)).status, 'limit');
    guest.ask(4, { op: 'put', key: 'a', sizeBytes: OBJECT_MAX_BYTES + 1 });
    assert.equal((await guest.replyTo(4)).status, 'limit');
    guest.stream.destroy();
    await guest.outcome;
  });

  it('answers what was asked before the guest ended its side', async () => {
    const guest = new Guest(newService()).hello().ask(1, { op: 'head', key: 'a' });
    guest.stream.end();
    assert.deepEqual(await guest.replyTo(1), { status: 'absent' });
    assert.deepEqual(await guest.outcome, { requestCount: 1, violation: undefined });
  });
});
