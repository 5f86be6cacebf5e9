import { test } from 'node:test';
import type { Stream } from '../../../shared/transport/transport.ts';
import { fuzzSeed, SeededRandom } from '../../fuzz/fuzz.ts';
import { TestAgent } from '../agent.ts';
import { blackHole } from '../black-hole.ts';
import { startParent, tcpServer, until } from '../setup.ts';

const STEPS = process.env['SLOW'] === '1' ? 5_000 : 400;
const FLOWS_MAX = 40;

interface OpenFlow {
  readonly stream: Stream;
  readonly flowId: number;
}

/**
 * A guest that does anything an agent can do, in any order: the parent's books agree with its sockets afterwards, and
 * no flow outlives its session.
 */
test('a guest at random leaves nothing behind', async (t) => {
  const seed = fuzzSeed();
  t.diagnostic(`seed ${seed}`);
  const random = new SeededRandom(seed);
  const pick = <T>(list: readonly T[]): T | undefined => (list.length === 0 ? undefined : random.pick(list));
  const { parent, tunnel } = await startParent(t);
  const clients = new Set<import('node:net').Socket>();
  const echo = await tcpServer(t, (client) => {
    clients.add(client);
    client.on('close', () => clients.delete(client)).pipe(client);
  });
  const ports = [echo, echo, await tcpServer(t, (client) => client.resetAndDestroy()), await blackHole(t), 1];
  let agent = await TestAgent.register(tunnel('web'));
  let flows: OpenFlow[] = [];
  const take = (): OpenFlow | undefined => {
    const flow = pick(flows);
    flows = flows.filter((one) => one !== flow);
    return flow;
  };
  const steps: readonly (() => Promise<void> | void)[] = [
    async () => {
      if (flows.length >= FLOWS_MAX) return;
      const flowId = agent.takeFlowId();
      const open = { port: pick(ports) ?? echo, addresses: ['127.0.0.1'] };
      const stream = await agent.start(open, Buffer.alloc(random.below(100_000)), flowId);
      if (random.below(2) === 0) stream.resume();
      flows.push({ stream, flowId });
    },
    () => void pick(flows)?.stream.write(Buffer.alloc(random.below(50_000))),
    () => void pick(flows)?.stream.end(),
    () => void take()?.stream.destroy(),
    () => agent.send({ type: 'reset', flowId: take()?.flowId ?? 2 * random.below(1000) }),
    () => void pick([...clients])?.resetAndDestroy(),
    () => void pick([...clients])?.destroy(),
    () => new Promise((resolve) => setTimeout(resolve, random.below(5))),
    async () => {
      if (random.below(10) > 0) return;
      agent.close();
      await until(() => parent.guest('web')?.session === undefined, 'the parent has noticed');
      for (const { stream } of flows) stream.destroy();
      flows = [];
      agent = await TestAgent.register(tunnel('web'), agent.key);
    },
  ];
  for (let step = 0; step < STEPS; step += 1) await pick(steps)?.();
  agent.close();
  const guest = parent.guest('web');
  await until(() => guest?.session === undefined, 'the parent has noticed');
  const books = () => [
    guest?.usage.flows,
    guest?.usage.dials,
    guest?.flows.size,
    guest?.unproven.size,
    clients.size,
  ];
  await until(() => books().every((count) => count === 0), 'all is counted out').catch((error: Error) => {
    throw new Error(`flows, dials, splices, unproven, destinations: ${books()}`, { cause: error });
  });
});
