import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { portsOf } from '../../../guest/capture/ports.ts';
import { StandIns } from '../../../guest/capture/stand-ins.ts';
import { compilePolicy } from '../../../shared/policy/compile.ts';
import { parsePolicy } from '../../../shared/policy/policy.ts';

/** Ports that no other test binds in 127.100.0.0/16. */
const PORTS = [28_090, 28_091];

test('past a cap the name asked for longest ago goes, and nobody gets its address; live flows go on', async (t) => {
  const taken: [socket: Socket, name: string, port: number][] = [];
  const standIns = new StandIns({
    portsOf: () => PORTS,
    onFlow: (socket, name, port) => taken.push([socket, name, port]),
    maxCount: 3,
    maxListenerCount: 4,
  });
  t.after(() => standIns.close());
  const first = await standIns.addressFor('first.test');
  const second = await standIns.addressFor('second.test');
  assert.equal(await standIns.addressFor('first.test'), first);
  const client = connect(PORTS[1] ?? 0, second);
  await once(client, 'connect');
  const third = await standIns.addressFor('third.test');
  assert.equal(new Set([first, second, third]).size, 3);
  assert.deepEqual(
    [first, second, third].map((address) => standIns.nameAt(address)),
    ['first.test', undefined, 'third.test'],
  );
  assert.deepEqual([standIns.count, standIns.listenerCount], [2, 4]);
  const refused = connect(PORTS[0] ?? 0, second);
  const [error] = await once(refused, 'error');
  assert.equal(error.code, 'ECONNREFUSED');
  const [flow] = taken;
  assert.deepEqual(flow?.slice(1), ['second.test', PORTS[1]]);
  flow?.[0].end('still here');
  const [piece] = await once(client, 'data');
  assert.equal(String(piece), 'still here');
  client.destroy();
  flow?.[0].destroy();
});

test('many names at once are listened on when they are told, and everything is closed in the end', async () => {
  const standIns = new StandIns({ portsOf: () => PORTS, onFlow: (socket) => socket.end('hi') });
  const names = Array.from({ length: 100 }, (_, index) => `n${index % 50}.test`);
  const addresses = await Promise.all(names.map((name) => standIns.addressFor(name)));
  assert.equal(new Set(addresses).size, 50);
  for (const address of addresses.slice(0, 50)) {
    const client = connect(PORTS[0] ?? 0, address);
    const [piece] = await once(client, 'data');
    assert.equal(String(piece), 'hi');
    client.destroy();
  }
  standIns.close();
  const [error] = await once(connect(PORTS[0] ?? 0, addresses[0] ?? ''), 'error');
  assert.equal(error.code, 'ECONNREFUSED');
});

test('a name has the ports of all rules that name it, less those that are denied', () => {
  const policy = compilePolicy(
    parsePolicy(
      `version: 1
egress:
  allow:
    - { fqdn: a.example.com, ports: [443, "8000-8003"] }
    - { fqdn: "*.example.com", ports: 80 }
    - { fqdn: a.example.com, ports: 53, protocol: udp }
    - { fqdn: wide.example.com, ports: "1-60000" }
    - { ip: 192.0.2.1, ports: 25 }
  deny: [{ fqdn: a.example.com, ports: 8001 }]`,
      'test',
    ),
  );
  assert.deepEqual(portsOf(policy, 'a.example.com'), [80, 443, 8000, 8002, 8003]);
  assert.deepEqual(portsOf(policy, 'b.example.com'), [80]);
  assert.deepEqual(portsOf(policy, 'example.org'), []);
  assert.throws(() => portsOf(policy, 'wide.example.com'), { code: 'ERR_FLOW_LIMIT' });
});
