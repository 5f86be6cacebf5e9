import assert from 'node:assert/strict';
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { TYPE } from '../../guest/dns/types.ts';
import { decodeSocksDatagram } from '../../guest/proxy/socks5-datagram.ts';
import { PartyProcess } from '../../shared/demo/party.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { addressRdata } from '../dns/encode.ts';
import { type RunningServer, streamServer } from '../dns/servers.ts';
import { TestWorld } from '../dns/world.ts';
import { TestZone } from '../dns/zone.ts';
import { connectTcp } from '../guest/agent-fixture.ts';
import { anchorText } from '../guest/signed-world.ts';
import { socksRequest } from '../guest/socks-client.ts';
import { closed } from '../parent/agent.ts';
import { until } from '../parent/setup.ts';

const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const STEP_TIMEOUT_MS = 60_000;
const HOUR_SECONDS = 3600;
const ASSOCIATIONS = 4;

interface Client {
  readonly control: Socket;
  readonly udp: UdpSocket;
  readonly relayPort: number;
  readonly reply: number;
  readonly received: string[];
}

/** RFC 1928 section 7, by hand: what precedes the payload is as in a request from its type on. */
function datagram(host: string, port: number, payload: string): Buffer {
  return Buffer.concat([Buffer.from([0, 0, 0]), socksRequest(host, port).subarray(6), Buffer.from(payload)]);
}

for (const cable of ['unix', 'hybrid'] as const) {
  describe(`UDP ASSOCIATE through a real agent and a real parent over ${cable}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-associate-'));
    const clients: Client[] = [];
    const arrived: string[] = [];
    let echo: UdpSocket;
    let echoPort = 0;
    let dns: RunningServer;
    let parent: PartyProcess;
    let guest: PartyProcess;
    let proxyPort = 0;
    let adminPort = 0;

    before(async () => {
      echo = createSocket('udp4').bind(0, '127.0.0.1');
      await once(echo, 'listening');
      echoPort = echo.address().port;
      echo.on('message', (payload: Buffer, from: RemoteInfo) => {
        arrived.push(payload.toString());
        echo.send(`echo ${payload}`, from.port, from.address);
      });
      const example = new TestZone('example.');
      example.add('echo.example.', TYPE.A, addressRdata('127.0.0.1'));
      const world = new TestWorld(new TestZone('.'), example);
      const now = Math.floor(Date.now() / 1000);
      for (const name of ['.', 'example.'])
        world.zone(name).signing = { inception: now - HOUR_SECONDS, expiration: now + HOUR_SECONDS };
      dns = await streamServer((query) => world.exchange(query));
      writeFileSync(join(folder, 'anchor.ds'), anchorText(world.top));
      writeConfigurations(folder, cable, echoPort, dns.port);
      parent = start('parent');
      adminPort = Number(/"admin":"127\.0\.0\.1:(\d+)"/.exec(await logged(parent, '"parent.up"'))?.[1]);
      guest = start('guest');
      proxyPort = Number(/"socks5":"127\.0\.0\.1:(\d+)"/.exec(await logged(guest, '"agent.up"'))?.[1]);
      await logged(guest, '"session.up"');
    });

    after(async () => {
      for (const { control, udp } of clients) {
        control.destroy();
        udp.close();
      }
      await guest?.stop();
      await parent?.stop();
      dns?.close();
      echo?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    function start(role: 'parent' | 'guest'): PartyProcess {
      const words = [process.execPath, POSTERN, role, '--config', join(folder, `${role}.yaml`)];
      return new PartyProcess(role, words, STEP_TIMEOUT_MS);
    }

    /** Asks for an association; with `announce` it says which port it will send from. */
    async function associate(announce = false): Promise<Client> {
      const udp = createSocket('udp4').bind(0, '127.0.0.1');
      await once(udp, 'listening');
      const received: string[] = [];
      udp.on('message', (bytes: Buffer) => {
        const { host, port, payload } = decodeSocksDatagram(bytes) ?? { host: '?', port: 0, payload: '' };
        received.push(`${host} ${port} ${payload}`);
      });
      const control = await connectTcp(proxyPort);
      control.on('error', () => {});
      control.write(socksRequest('0.0.0.0', announce ? udp.address().port : 0, 3));
      await readExactly(control, 2, STEP_TIMEOUT_MS);
      const answer = await readExactly(control, 10, STEP_TIMEOUT_MS);
      const client = {
        control,
        udp,
        relayPort: answer.readUInt16BE(8),
        reply: answer.readUInt8(1),
        received,
      };
      clients.push(client);
      return client;
    }

    function send({ udp, relayPort }: Client, bytes: Buffer): void {
      udp.send(bytes, relayPort, '127.0.0.1');
    }

    async function associationCount(): Promise<number> {
      const text = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text();
      return Number(/^postern_parent_associations\{guest="web"\} (\d+)$/m.exec(text)?.[1]);
    }

    async function end(client: Client): Promise<void> {
      const before = await associationCount();
      client.control.end();
      await closed(client.control);
      for (let tries = 0; tries < 100 && (await associationCount()) >= before; tries += 1)
        await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(await associationCount(), before - 1);
    }

    it('carries datagrams to an allowed address and name, and their answers with where they came from', async () => {
      const client = await associate();
      assert.equal(client.reply, 0);
      send(client, datagram('127.0.0.1', echoPort, 'by address'));
      await until(() => client.received.length === 1, 'the first answer');
      send(client, datagram('echo.example', echoPort, 'by name'));
      await until(() => client.received.length === 2, 'the second answer');
      assert.deepEqual(client.received, [
        `127.0.0.1 ${echoPort} echo by address`,
        `127.0.0.1 ${echoPort} echo by name`,
      ]);
      // Longer than what one write on such a cable may carry.
      const large = 'large '.repeat(8000);
      send(client, datagram('127.0.0.1', echoPort, large));
      await until(() => client.received.length === 3, 'the third answer');
      assert.equal(client.received[2], `127.0.0.1 ${echoPort} echo ${large}`);
      await end(client);
    });

    it('decides every datagram by policy: other ports, addresses and names get nowhere and are written down', async () => {
      const client = await associate();
      arrived.length = 0;
      send(client, datagram('127.0.0.1', echoPort === 9 ? 10 : 9, 'another port'));
      send(client, datagram('192.0.2.1', echoPort, 'another address'));
      send(client, datagram('evil.example', echoPort, 'another name'));
      send(client, datagram('2130706433', echoPort, 'a numeric spelling'));
      await logged(guest, '"numeric-spelling"');
      for (const reason of ['port-not-allowed', 'no-rule'])
        await guest.logged(reason, (line) =>
          line.includes('"flow.refused"') && line.includes('"udp"') && line.includes(reason)
            ? line
            : undefined,
        );
      send(client, datagram('127.0.0.1', echoPort, 'allowed'));
      await until(() => client.received.length === 1, 'the answer to the one that is allowed');
      assert.deepEqual(arrived, ['allowed']);
      await end(client);
    });

    it('drops fragments, garbage, and what is not from the client’s own port', async () => {
      const client = await associate(true);
      const stranger = createSocket('udp4');
      arrived.length = 0;
      await new Promise<void>((resolve) =>
        stranger.send(datagram('127.0.0.1', echoPort, 'stranger'), client.relayPort, '127.0.0.1', () =>
          resolve(),
        ),
      );
      stranger.close();
      const fragment = datagram('127.0.0.1', echoPort, 'fragment');
      fragment.writeUInt8(1, 2);
      send(client, fragment);
      send(client, Buffer.from('garbage'));
      send(client, Buffer.alloc(0));
      send(client, datagram('127.0.0.1', echoPort, 'mine'));
      await until(() => client.received.length === 1, 'the answer');
      assert.deepEqual(arrived, ['mine']);
      await end(client);
    });

    it('a client that did not say its port is the first that sends', async () => {
      const client = await associate();
      send(client, datagram('127.0.0.1', echoPort, 'first'));
      await until(() => client.received.length === 1, 'the answer');
      const other = await associate();
      arrived.length = 0;
      other.udp.send(datagram('127.0.0.1', echoPort, 'late'), client.relayPort, '127.0.0.1');
      send(client, datagram('127.0.0.1', echoPort, 'second'));
      await until(() => client.received.length === 2, 'the second answer');
      assert.deepEqual(arrived, ['second']);
      await end(other);
      await end(client);
    });

    it('ends for the client when the parent has no room, and with the agent', async () => {
      const open: Client[] = [];
      for (let count = 0; count < ASSOCIATIONS; count += 1) open.push(await associate());
      assert.deepEqual(new Set(open.map(({ reply }) => reply)), new Set([0]));
      assert.equal((await associate()).reply, 1);
      await guest.stop();
      await Promise.all(open.map(({ control }) => closed(control)));
      assert.equal(await associationCount(), 0);
    });
  });
}

function logged(party: PartyProcess, text: string): Promise<string> {
  return party.logged(text, (line) => (line.includes(text) ? line : undefined));
}

function writeConfigurations(
  folder: string,
  cable: 'unix' | 'hybrid',
  echoPort: number,
  dnsPort: number,
): void {
  // A hypervisor would connect the guest's stream to this socket; it is all the difference.
  const path = join(folder, cable === 'unix' ? 'parent.sock' : 'vm.sock_5000');
  const web = {
    listen: cable === 'unix' ? `unix:${path}` : `hybrid:${join(folder, 'vm.sock')}:5000`,
    egress: {
      allow: [
        { ip: '127.0.0.1', ports: echoPort, protocol: 'udp' },
        { ip: '127.0.0.1', ports: dnsPort },
      ],
    },
    quotas: { associations: ASSOCIATIONS },
  };
  const state = join(folder, 'state');
  writeFileSync(
    join(folder, 'parent.yaml'),
    stringify({ version: 1, state, admin: '127.0.0.1:0', log: { format: 'json' }, guests: { web } }),
  );
  const allow = [
    { fqdn: 'echo.example', ports: echoPort, protocol: 'udp', dnssec: 'require' },
    { ip: '127.0.0.1', ports: echoPort, protocol: 'udp' },
  ];
  writeFileSync(
    join(folder, 'guest.yaml'),
    stringify({
      version: 1,
      parent: `unix:${path}`,
      sessionKey: join(folder, 'closed', 'session.key'),
      resolvers: [`127.0.0.1:${dnsPort}`],
      trustAnchor: 'anchor.ds',
      proxies: { socks5: '127.0.0.1:0' },
      log: { format: 'json' },
      policy: { version: 1, egress: { allow } },
    }),
  );
}
