import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { FlowTable } from '../../guest/flow/flow-table.ts';
import { FlowOpener } from '../../guest/flow/opener.ts';
import { SessionClient, type SessionState } from '../../guest/session/client.ts';
import { isPosternError } from '../../shared/errors.ts';
import { encodeReply } from '../../shared/wire/reply.ts';
import { fuzzRounds, fuzzSeed, SeededRandom } from '../fuzz/fuzz.ts';
import { FakeParent, scratch } from './fake-parent.ts';

type Phase = SessionState['phase'];

/** session.md, as a table: which state may follow which. */
const FOLLOWS: Readonly<Record<Phase, readonly Phase[]>> = {
  connecting: ['up', 'waiting', 'closed'],
  up: ['draining', 'waiting', 'closed'],
  draining: ['waiting', 'closed'],
  waiting: ['connecting', 'closed'],
  closed: [],
};

test('the session survives whatever its parent does, in legal steps and without a flow left behind', async (t) => {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  t.diagnostic(`SEED=${seed}`);
  const { folder, remove } = await scratch();
  const key = randomBytes(32);
  const table = new FlowTable();
  const phases: Phase[] = ['connecting'];
  let parent = new FakeParent(folder);
  await parent.listen();
  const address = { kind: 'unix', path: parent.path } as const;
  const session = new SessionClient({
    parent: address,
    key,
    capabilities: 1,
    agent: 'test',
    welcomeTimeoutMs: 50,
    onState: ({ phase }) => phases.push(phase),
    onLost: () => table.abortAll(),
    onReset: (flowId) => table.reset(flowId),
  });
  const times = { sessionWaitMs: 20, replyTimeoutMs: 50 };
  const opener = new FlowOpener({
    parent: address,
    session,
    table,
    ...times,
    onOpen: () => {},
    onDone: () => {},
  });
  session.start();

  const steps: (() => void | Promise<void>)[] = [
    () => void parent.control?.destroy(),
    () => void parent.control?.write(random.bytes(1 + random.below(30))),
    () => parent.channel?.send({ type: 'goaway', deadlineMs: random.below(50) }),
    () => parent.channel?.send({ type: 'reset', flowId: 2 * random.below(20) }),
    () => {
      parent.onHello = (stream) => {
        parent.onHello = undefined;
        stream.end(random.pick([encodeReply('malformed'), random.bytes(16), Buffer.alloc(0)]));
      };
    },
    () => {
      parent.onHello = () => {
        parent.onHello = undefined;
      };
    },
    () => {
      const answer = random.pick([
        encodeReply('ok'),
        encodeReply('refused'),
        random.bytes(4),
        Buffer.alloc(0),
      ]);
      parent.onOpen = (stream) => {
        stream.resume();
        if (answer.length > 0) stream.write(answer);
      };
    },
    async () => {
      await parent.close();
      parent = new FakeParent(folder);
      await parent.listen();
    },
  ];
  const flows: Promise<unknown>[] = [];
  for (let round = 0; round < fuzzRounds(40); round += 1) {
    for (let count = random.below(4); count > 0; count -= 1) {
      const opening = opener.open(['192.0.2.7'], { via: 'socks5', protocol: 'tcp', port: 80, rule: 'r' });
      // Coded errors are what is expected here; a bug of ours is not one.
      flows.push(opening.catch((error: unknown) => assert.ok(isPosternError(error), String(error))));
    }
    await random.pick(steps)();
    await new Promise((resolve) => setTimeout(resolve, random.below(30)));
  }
  parent.onHello = undefined;
  await session.ready(20_000);
  await Promise.all(flows);
  assert.ok(parent.hellos.every((hello) => hello.key.equals(key)));
  parent.control?.destroy();
  assert.equal(await table.drained(5_000), 0);
  await session.close();
  await parent.close();
  await remove();
  phases.forEach((phase, index) => {
    const before = phases[index - 1];
    // The first state is told again when the client starts.
    const legal = before === undefined || index === 1 || FOLLOWS[before].includes(phase);
    assert.ok(legal, `${before} to ${phase}, step ${index}`);
  });
  assert.equal(phases.at(-1), 'closed');
});
