import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { TYPE } from '../../guest/dns/types.ts';
import { addressRdata } from '../dns/encode.ts';
import { type RunningServer, streamServer } from '../dns/servers.ts';
import { FakeParent, scratch } from '../guest/fake-parent.ts';
import { anchorText, newWorld, RESOLVER } from '../guest/signed-world.ts';

const run = promisify(execFile);
const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const HOUR_SECONDS = 3600;

/** A program that knows nothing of Postern: it fetches, and says what came of it. */
const WORKLOAD = `
const results = {};
for (const url of process.argv.slice(2)) {
  try {
    results[url] = await (await fetch(url)).text();
  } catch (error) {
    results[url] = error.cause?.code ?? String(error);
  }
}
process.stdout.write(JSON.stringify(results) + '\\n');
`;

describe('programs on a guest with nothing but lo, names captured', () => {
  let folder: string;
  let remove: () => Promise<void>;
  let parent: FakeParent;
  let dns: RunningServer;
  const asked: string[] = [];
  const web = createServer((request, response) => response.end(`hello ${request.headers.host}`));

  before(async () => {
    ({ folder, remove } = await scratch());
    const world = newWorld();
    const now = Math.floor(Date.now() / 1000);
    const signing = { inception: now - HOUR_SECONDS, expiration: now + HOUR_SECONDS };
    for (const name of ['.', 'example.']) world.zone(name).signing = signing;
    world.zone('example.').add('forged.example.', TYPE.A, addressRdata('192.0.2.7'));
    world.tamper = (message, name, type) => {
      asked.push(name.toString());
      if (type === TYPE.A && name.toString() === 'forged.example.')
        for (const [index, record] of message.answer.entries())
          if (record.type === TYPE.A)
            message.answer[index] = { ...record, rdata: addressRdata('192.0.2.66') };
    };
    dns = await streamServer((query) => world.exchange(query));
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    parent = new FakeParent(folder);
    await parent.listen();
    parent.route(RESOLVER, 53, dns.port);
    for (const address of ['192.0.2.7', '2001:db8::7', '192.0.2.9'])
      for (const port of [80, 8081]) parent.route(address, port, web);
    await mkdir(join(folder, 'closed'), { mode: 0o700 });
    await writeFile(join(folder, 'anchor.ds'), anchorText(world.top));
    await writeFile(join(folder, 'resolv.conf'), 'nameserver 127.0.0.1\noptions edns0 trust-ad\n');
    await writeFile(join(folder, 'workload.mjs'), WORKLOAD);
    await writeFile(
      join(folder, 'guest.yaml'),
      `version: 1
parent: unix:${parent.path}
sessionKey: ${join(folder, 'closed', 'session.key')}
resolvers: [${RESOLVER}]
trustAnchor: anchor.ds
dns: {listen: "127.0.0.1:53"}
capture: names
policy:
  version: 1
  egress:
    allow:
      - {fqdn: [www.example, forged.example, alias.example], ports: 80, dnssec: require}
      - {fqdn: other.example, ports: 8081}
      - {fqdn: plain.test, ports: 80}
log: {format: json}
`,
    );
  });
  after(async () => {
    await parent.close();
    dns.close();
    web.close();
    web.closeAllConnections();
    await remove();
  });

  async function inside(...words: string[]): Promise<{ stdout: string; stderr: string }> {
    const script = `ip link set lo up && mount --bind ${folder}/resolv.conf /etc/resolv.conf && exec "$@"`;
    const asRoot = process.geteuid?.() === 0 ? [] : ['--map-root-user'];
    const agent = [process.execPath, POSTERN, 'guest', '--config', join(folder, 'guest.yaml'), '--'];
    return run('unshare', [...asRoot, '--net', '--mount', 'sh', '-c', script, 'sh', ...agent, ...words], {
      timeout: 60_000,
    });
  }

  it('reach each name on its own ports, and nothing else', async () => {
    const urls = [
      'http://www.example/',
      'http://alias.example/',
      'http://other.example:8081/',
      'http://plain.test/',
      'http://other.example/',
      'http://www.example:8081/',
    ];
    const unknown = ['http://forged.example/', 'http://secret.evil.org/', 'http://www.test/'];
    const words = [process.execPath, join(folder, 'workload.mjs'), ...urls, ...unknown];
    const { stdout, stderr } = await inside(...words);
    const results = JSON.parse(stdout) as Record<string, string>;
    assert.deepEqual(
      urls.map((url) => results[url]),
      [
        'hello www.example',
        'hello alias.example',
        'hello other.example:8081',
        'hello plain.test',
        'ECONNREFUSED',
        'ECONNREFUSED',
      ],
    );
    for (const url of unknown) assert.match(results[url] ?? '', /^(EAI_AGAIN|ENOTFOUND)$/, url);
    assert.ok(!asked.some((name) => /evil|www\.test/.test(name)));
    const destinations = parent.opens
      .filter(({ port }) => port !== 53)
      .map(({ port, addresses }) => `${port} ${addresses.at(-1)}`);
    assert.deepEqual(destinations, ['80 192.0.2.7', '80 192.0.2.7', '8081 192.0.2.7', '80 192.0.2.9']);
    assert.match(stderr, /"event":"name\.failed".*"name":"forged\.example\.".*"code":"ERR_DNS_BOGUS"/);
    assert.match(stderr, /"event":"name\.refused".*"name":"secret\.evil\.org\."/);
  });

  it('curl too', async () => {
    const { stdout } = await inside(
      'curl',
      '--silent',
      '--show-error',
      '--max-time',
      '30',
      'http://www.example/',
    );
    assert.equal(stdout, 'hello www.example');
  });
});
