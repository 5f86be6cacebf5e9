import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { COMMAND } from '../../../guest/nbd/constants.ts';
import { MAX_PAYLOAD_BYTES } from '../../../guest/nbd/limits.ts';
import { PosternError } from '../../../shared/errors.ts';
import { fuzzRounds, fuzzSeed, SeededRandom } from '../../fuzz/fuzz.ts';
import { GatedDevice, settle } from './gated-device.ts';
import { MemoryDevice } from './memory-device.ts';
import { RawClient } from './raw-client.ts';
import { RunningServer } from './running-server.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE_BYTES = 64 * MIB;

interface State {
  /** What the connection holds then. */
  readonly heldBytes: number;
  readonly reach: (client: RawClient) => void;
}

/** Each beside a connection that holds 32 MiB. */
const STATES: Readonly<Record<string, State>> = {
  'waits for bytes, with a read': {
    heldBytes: 0,
    reach: (client) => client.request({ type: COMMAND.READ, length: MAX_PAYLOAD_BYTES }),
  },
  'waits for bytes, with a write and some of its payload': {
    heldBytes: 0,
    reach: (client) =>
      client.request({ type: COMMAND.WRITE, length: MAX_PAYLOAD_BYTES }, Buffer.alloc(300 * KIB)),
  },
  'waits for bytes, with requests begun': {
    heldBytes: MIB,
    reach: (client) => repeat(40, () => client.request({ type: COMMAND.READ, length: MIB })),
  },
  'has too many requests': {
    heldBytes: 16 * 512,
    reach: (client) => repeat(40, () => client.request({ type: COMMAND.READ, length: 512 })),
  },
  'has received half a payload': {
    heldBytes: MIB,
    reach: (client) => client.request({ type: COMMAND.WRITE, length: MIB }, Buffer.alloc(MIB / 2)),
  },
  'has received half a small payload, with requests begun': {
    heldBytes: 8 * KIB,
    reach: (client) => {
      client.request({ type: COMMAND.READ, length: 4 * KIB });
      client.request({ type: COMMAND.WRITE, length: 4 * KIB }, Buffer.alloc(100));
    },
  },
  'skips a refused payload, with requests begun': {
    heldBytes: 4 * KIB,
    reach: (client) => {
      client.request({ type: COMMAND.READ, length: 4 * KIB });
      client.request({ type: COMMAND.WRITE, offset: SIZE_BYTES, length: MIB }, Buffer.alloc(MIB / 2));
    },
  },
  'has requests begun': {
    heldBytes: MIB,
    reach: (client) => repeat(4, () => client.request({ type: COMMAND.READ, length: 256 * KIB })),
  },
  'has said DISC with requests begun': {
    heldBytes: MIB,
    reach: (client) => {
      client.request({ type: COMMAND.READ, length: MIB });
      client.request({ type: COMMAND.DISC });
    },
  },
  'has sent half a request': { heldBytes: 0, reach: (client) => client.send(Buffer.alloc(9, 0x25)) },
};

function repeat(times: number, act: () => void): void {
  for (let count = 0; count < times; count += 1) act();
}

/** How a connection ends. */
const ENDS: Readonly<Record<string, (client: RawClient, running: RunningServer) => void>> = {
  'the client closes': ({ socket }) => void socket.destroy(),
  'the client resets': ({ socket }) => void socket.resetAndDestroy(),
  'the client half closes': ({ socket }) => void socket.end(),
  'the client talks nonsense': (client) => {
    client.send(Buffer.alloc(MAX_PAYLOAD_BYTES));
    client.socket.end();
  },
  'the export goes away': (_client, running) => void running.server.remove('', 50),
};

describe('NBD budget of connections that end', () => {
  for (const [state, { heldBytes, reach }] of Object.entries(STATES)) {
    for (const [end, leave] of Object.entries(ENDS)) {
      it(`${state}: ${end}`, async (t) => {
        const device = new GatedDevice(SIZE_BYTES);
        const running = await RunningServer.start([{ name: '', device }], { inflightRequests: 16 });
        t.after(() => running.close());
        const holder = await running.open();
        holder.request({ type: COMMAND.WRITE, length: MAX_PAYLOAD_BYTES }, Buffer.alloc(5 * MIB));
        const client = await openTcp(t, running);
        reach(client);
        await settle();
        const waiting = state.startsWith('waits');
        assert.equal(running.server.heldBytes, MAX_PAYLOAD_BYTES + heldBytes);
        leave(client, running);
        await settle();
        // What the device works on is in memory until it is done, whoever is gone.
        device.letAllGo();
        await settle();
        if (!waiting) await untilClosed(running, device, end === 'the export goes away' ? 0 : 1);
        holder.socket.destroy();
        await untilClosed(running, device, 0);
        assert.equal(running.server.heldBytes, 0);
      });
    }
  }
});

describe('NBD budget of many clients', () => {
  it('is never exceeded, and given back whole', async (t) => {
    const seed = fuzzSeed();
    t.diagnostic(`SEED=${seed}`);
    const random = new SeededRandom(seed);
    const limits = { inflightBytes: MIB, ownBytes: 64 * KIB, connections: 8, inflightRequests: 16 };
    for (let round = 0; round < fuzzRounds(4); round += 1) {
      const running = await RunningServer.start([{ name: '', device: new SlowDevice(random) }], limits);
      t.after(() => running.close());
      let mostBytes = 0;
      let isOver = false;
      const watch = (async () => {
        while (!isOver) {
          mostBytes = Math.max(mostBytes, running.server.heldBytes);
          await new Promise((resolve) => setImmediate(resolve));
        }
      })();
      await Promise.all(Array.from({ length: limits.connections }, () => mingle(random, running)));
      while (running.server.connectionCount > 0) await settle();
      for (let turn = 0; turn < 3; turn += 1) await settle();
      isOver = true;
      await watch;
      const place = `seed ${seed} round ${round}`;
      assert.equal(running.server.heldBytes, 0, place);
      assert.ok(mostBytes <= limits.inflightBytes + limits.connections * limits.ownBytes, place);
      assert.ok(mostBytes > limits.inflightBytes / 2, `${place}: only ${mostBytes} bytes were ever held`);
    }
  });
});

/** Takes some turns for everything, and fails now and then. */
class SlowDevice extends MemoryDevice {
  readonly #random: SeededRandom;

  constructor(random: SeededRandom) {
    super(SIZE_BYTES);
    this.#random = random;
  }

  override async read(offset: number, length: number): Promise<Buffer> {
    await this.#work();
    return super.read(offset, length);
  }

  override async write(...args: Parameters<MemoryDevice['write']>): Promise<void> {
    await this.#work();
    await super.write(...args);
  }

  async #work(): Promise<void> {
    for (let turns = this.#random.below(8); turns > 0; turns -= 1) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (this.#random.below(20) === 0) throw new PosternError('ERR_STORE_UNAVAILABLE', 'for a moment');
  }
}

/** Several clients one after the other; each says this and that, takes its replies or not, and leaves in some way. */
async function mingle(random: SeededRandom, running: RunningServer): Promise<void> {
  for (let clients = 0; clients < 6; clients += 1) {
    const client = await openAtLast(running, {
      structured: random.below(2) === 0,
      allocation: random.below(2) === 0,
    });
    if (random.below(4) === 0) client.socket.pause();
    for (let count = random.below(30); count > 0; count -= 1) {
      const length = random.below(random.pick([10, 4 * KIB, 70 * KIB, MIB]));
      const type = random.pick([
        COMMAND.READ,
        COMMAND.WRITE,
        COMMAND.WRITE,
        COMMAND.TRIM,
        COMMAND.BLOCK_STATUS,
      ]);
      const offset = random.pick([0, 4096, SIZE_BYTES - 4096]);
      const isCut = random.below(15) === 0;
      const payload = Buffer.alloc(
        type === COMMAND.WRITE ? (isCut ? random.below(length + 1) : length) : 0,
        1,
      );
      client.request({ type, offset, length }, payload);
      if (random.below(3) === 0) await new Promise((resolve) => setImmediate(resolve));
      if (isCut) break;
    }
    if (random.below(3) === 0) await settle();
    const { socket } = client;
    const closed = once(socket, 'close');
    const leave = random.pick([
      () => client.disconnect(),
      () => socket.end(),
      () => socket.destroy(),
      () => client.request({ type: COMMAND.FLUSH, magic: 1 }),
    ]);
    leave();
    // Whoever still waits for a cut payload's rest, or whose replies nobody takes, goes at last.
    for (let turn = 0; turn < 10 && !socket.closed; turn += 1) await settle();
    socket.destroy();
    await closed;
  }
}

/** The server may have to find out first that others are gone: until then their places are taken. */
async function openAtLast(
  running: RunningServer,
  mode: { structured: boolean; allocation: boolean },
): Promise<RawClient> {
  for (;;) {
    const client = await running.open('', mode).catch(() => undefined);
    if (client !== undefined) return client;
    await settle();
  }
}

/** A stream that can be reset; a unix socket cannot. */
async function openTcp(t: TestContext, running: RunningServer): Promise<RawClient> {
  const listener = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (stream: Socket) => {
    running.server.serve(stream);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => listener.close());
  const address = listener.address();
  assert.ok(typeof address === 'object' && address !== null);
  const socket = connect({ host: '127.0.0.1', port: address.port, allowHalfOpen: true });
  await once(socket, 'connect');
  // Else requests wait for the kernel's acknowledgement of those before them.
  socket.setNoDelay(true);
  const client = RawClient.over(socket);
  t.after(() => socket.destroy());
  await client.go();
  return client;
}

async function untilClosed(running: RunningServer, device: GatedDevice, count: number): Promise<void> {
  while (running.server.connectionCount > count) {
    device.letAllGo();
    await settle();
  }
  device.letAllGo();
  await settle();
}
