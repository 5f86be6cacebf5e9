import { mkdtempSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { TYPE } from '../../guest/dns/types.ts';
import { addressRdata, nameRdata } from '../dns/encode.ts';
import { type Certificate, httpsServer, type RunningServer, streamServer } from '../dns/servers.ts';
import { dsRdata, NOW } from '../dns/signer.ts';
import { TestWorld } from '../dns/world.ts';
import { TestZone } from '../dns/zone.ts';
import { type Fixture, listenTcp, startFixture } from './agent-fixture.ts';
import type { FakeParent } from './fake-parent.ts';

export const RESOLVER = '192.0.2.53';

/** A signed root and `example.`, an unsigned `test.`; what policies of the tests are about. */
export function newWorld(): TestWorld {
  const example = new TestZone('example.');
  const a = (name: string, ...addresses: string[]): void => {
    example.add(name, TYPE.A, ...addresses.map(addressRdata));
  };
  a('www.example.', '192.0.2.7');
  a('other.example.', '192.0.2.7');
  a('inside.example.', '127.0.0.1', '169.254.169.254', '10.0.0.1');
  a('mixed.example.', '127.0.0.1', '192.0.2.7');
  a('private.example.', '10.1.2.3', '10.2.2.3');
  a('denied.example.', '192.0.2.99');
  a('many.example.', ...Array.from({ length: 100 }, (_, index) => `192.0.2.${index + 100}`));
  example.add('www.example.', TYPE.AAAA, Buffer.from('20010db8000000000000000000000007', 'hex'));
  example.add('mapped.example.', TYPE.AAAA, Buffer.from('00000000000000000000ffff7f000001', 'hex'));
  example.add('alias.example.', TYPE.CNAME, nameRdata('alias2.example.'));
  example.add('alias2.example.', TYPE.CNAME, nameRdata('www.example.'));
  example.add('across.example.', TYPE.CNAME, nameRdata('plain.test.'));
  const unsigned = new TestZone('test.', { signed: false });
  unsigned.add('plain.test.', TYPE.A, addressRdata('192.0.2.9'));
  return new TestWorld(new TestZone('.'), example, unsigned);
}

/** The anchor as a file holds it. */
export function anchorText(zone: TestZone): string {
  return zone.keys
    .map((key) => {
      const ds = dsRdata(zone.name, key);
      return `${zone.name} IN DS ${ds.readUInt16BE(0)} ${ds[2]} ${ds[3]} ${ds.toString('hex', 4)}\n`;
    })
    .join('');
}

export interface SignedOptions {
  readonly policy: string;
  readonly world?: TestWorld;
  readonly resolvers?: readonly string[];
  readonly config?: string;
  readonly clock?: () => number;
  /** Where the echo answers. */
  readonly ports?: readonly number[];
  /** How the resolver is reached; DNS over TCP unless said otherwise. */
  readonly serve?: { readonly kind: 'tls' | 'https'; readonly certificate: Certificate };
  prepare?(parent: FakeParent): void;
  /** The anchor's text; the world's unless said otherwise. */
  readonly anchor?: string;
}

export interface SignedFixture extends Fixture {
  readonly world: TestWorld;
  readonly dns: RunningServer;
  /** Everything that the agent logged. */
  readonly lines: Record<string, unknown>[];
  /** What was dialled for the workload: addresses and port of each OPEN but those to the resolver. */
  dialled(): string[];
}

/** An agent whose resolver is the test's signed world, behind the parent played by hand; an echo at the usual addresses. */
export async function startSigned(options: SignedOptions): Promise<SignedFixture> {
  const world = options.world ?? newWorld();
  const folder = mkdtempSync(join(tmpdir(), 'postern-signed-'));
  writeFileSync(join(folder, 'anchor.ds'), options.anchor ?? anchorText(world.top));
  const { serve } = options;
  const respond = (query: Buffer): Promise<Buffer> => world.exchange(unpadded(query));
  const dns = await (serve?.kind === 'https'
    ? httpsServer(respond, serve.certificate)
    : streamServer(respond, serve?.certificate));
  if (serve !== undefined) writeFileSync(join(folder, 'ca.pem'), serve.certificate.cert);
  const certificates = serve === undefined ? '' : `resolverCertificates: ${join(folder, 'ca.pem')}\n`;
  const echo = await listenTcp((socket) => socket.pipe(socket));
  const lines: Record<string, unknown>[] = [];
  const sink = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  const release = async (): Promise<void> => {
    dns.close();
    echo.close();
    await rm(folder, { recursive: true });
  };
  const fixture = await startFixture({
    policy: options.policy,
    resolvers: options.resolvers ?? [RESOLVER],
    config: `trustAnchor: ${join(folder, 'anchor.ds')}\n${certificates}${options.config ?? ''}`,
    clock: options.clock ?? (() => NOW),
    ...(options.prepare && { prepare: options.prepare }),
    logger: pino({ level: 'debug' }, sink),
  }).catch(async (error: unknown) => {
    await release();
    throw error;
  });
  for (const port of [53, 853, 443]) fixture.parent.route(RESOLVER, port, dns.port);
  for (const address of ['192.0.2.7', '2001:db8::7', '192.0.2.9', '10.1.2.3'])
    for (const port of options.ports ?? [80, 81, 8080]) fixture.parent.route(address, port, echo.server);
  const close = async (): Promise<void> => {
    await fixture.close();
    await release();
  };
  const dialled = (): string[] =>
    fixture.parent.opens
      .filter(({ addresses }) => addresses[0] !== RESOLVER)
      .map(({ addresses, port }) => `${addresses.join(' ')} ${port}`);
  return { ...fixture, world, dns, lines, dialled, close };
}

/** The world reads the questions of our own encoder; encrypted ones come with padding behind them (RFC 7830). */
function unpadded(query: Buffer): Buffer {
  let end = 12;
  while (query.readUInt8(end) !== 0) end += query.readUInt8(end) + 1;
  const plain = Buffer.from(query.subarray(0, end + 5 + 11));
  plain.writeUInt16BE(0, plain.length - 2);
  return plain;
}
