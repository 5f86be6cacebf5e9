import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAnchors, TrustAnchors } from '../../../guest/dns/anchors.ts';
import { type Message, readMessage } from '../../../guest/dns/message.ts';
import { DomainName } from '../../../guest/dns/name.ts';
import { rdataText } from '../../../guest/dns/presentation.ts';
import { TYPE, typeName } from '../../../guest/dns/types.ts';
import { directTcp } from '../../../guest/dns/upstream/connect.ts';
import { PipelinedUpstream } from '../../../guest/dns/upstream/pipelined.ts';
import { encodeQuery } from '../../../guest/dns/upstream/query.ts';
import { DIRECT, resolverFor } from '../../../guest/dns/upstream/resolvers.ts';
import { udpUpstream } from '../../../guest/dns/upstream/udp.ts';
import { Validator } from '../../../guest/dns/validator.ts';
import type { Verdict } from '../../../guest/dns/verdict.ts';
import { SeededRandom } from '../../fuzz/fuzz.ts';
import { ORACLE, startServers, UPSTREAMS, waitForServers } from './servers.ts';
import { buildZones, ZONES } from './zones.ts';

/** Run inside a network namespace of its own: `differential.ts SEED ROUNDS`. Prints what disagrees, as JSON lines. */
const [seed = 1, rounds = 100] = process.argv.slice(2).map(Number);
const TYPES = [
  TYPE.A,
  TYPE.A,
  TYPE.AAAA,
  TYPE.TXT,
  TYPE.MX,
  TYPE.CNAME,
  TYPE.DS,
  TYPE.DNSKEY,
  TYPE.NS,
  TYPE.SOA,
  TYPE.HTTPS,
  TYPE.NSEC,
];
const LABELS = [
  'www',
  'www',
  'mail',
  'text',
  'service',
  'here',
  'there',
  'far',
  'gone',
  'x.wild',
  'a.b.wild',
  'wild',
  'known.wild',
  'y.wildalias',
  'moved',
  'www.moved',
  'there.moved',
  'none.moved',
  'empty',
  'deep.empty',
  'x.deep.empty',
  'upper.case',
  'case',
  'none',
  'a.none',
  '_tcp.www',
  '*.wild',
  'ns',
  '',
  'x.www',
  'ent',
  'plain',
  'www.nonzone',
];

const oracleTcp = new PipelinedUpstream('oracle', directTcp(ORACLE));
const folder = mkdtempSync(join(tmpdir(), 'postern-hierarchy-'));
buildZones(folder);
const children = startServers(folder);
try {
  await waitForServers();
  const anchors = new TrustAnchors(
    parseAnchors(readFileSync(join(folder, 'root.anchor'), 'utf8'), 'root.anchor'),
  );
  const clock = (): number => Math.floor(Date.now() / 1000);
  const random = new SeededRandom(seed);
  const newValidators = (): [string, Validator][] =>
    Object.entries(UPSTREAMS).map(([name, address]) => {
      const resolvers = [resolverFor({ ...address, protocol: 'plain' }, DIRECT)];
      return [name, new Validator({ resolvers, anchors, clock })];
    });
  let validators = newValidators();
  const states: Record<string, number> = {};
  for (let round = 0; round < rounds; round += 1) {
    // Often with nothing known, else with what earlier questions left.
    if (round % 20 === 0) validators = newValidators();
    const { name, type } = randomQuestion(random);
    const theirs = await oracle(name, type);
    states[theirs.state] = (states[theirs.state] ?? 0) + 1;
    for (const [through, validator] of validators) {
      // An NSEC stands beside a CNAME (RFC 4034 section 3): unbound follows the alias all the same, Knot Resolver does not.
      if (through !== 'unbound' && type === TYPE.NSEC && (await isAlias(name, theirs))) continue;
      const ours = outcome(await validator.resolve(name, type));
      if (comparable(ours) === comparable(theirs)) continue;
      const question = `${name} ${typeName(type)}`;
      process.stdout.write(`${JSON.stringify({ round, question, through, ours, theirs })}\n`);
    }
  }
  process.stdout.write(`${JSON.stringify({ done: rounds, states })}\n`);
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = 0;

interface Outcome {
  readonly state: string;
  readonly rcode: number;
  readonly data: readonly string[];
  readonly reason: string;
}

function randomQuestion(pick: SeededRandom): { name: DomainName; type: number } {
  const zone = pick.pick(ZONES).name;
  const label = pick.pick(LABELS);
  const text = label === '' ? zone : `${label}.${zone === '.' ? '' : zone}`;
  const type = pick.pick(TYPES);
  // Unbound 1.17, our oracle, calls a CNAME or DNAME asked for below a DNAME bogus; later ones agree with us.
  if (type === TYPE.CNAME && label.endsWith('.moved')) return randomQuestion(pick);
  return { name: DomainName.parse(text), type };
}

/** In an unsigned zone a cache may have kept an alias longer than the DNAME that made it; nobody can ask for more. */
function comparable({ state, rcode, data }: Outcome): string {
  const isKept = (line: string): boolean => state !== 'insecure' || !line.includes(' DNAME ');
  return JSON.stringify([state, rcode, data.filter(isKept)]);
}

function outcome(verdict: Verdict): Outcome {
  const data = verdict.answers.flatMap((rrset) =>
    rrset.rdata.map((rdata) => `${rrset.name} ${typeName(rrset.type)} ${rdataText(rrset.type, rdata)}`),
  );
  return {
    state: verdict.state,
    rcode: verdict.rcode,
    data: [...new Set(data)].sort(),
    reason: verdict.reason,
  };
}

/**
 * Where what an alias leads to is bogus, the answer does not show the alias: then it is asked for on its own,
 * except below a DNAME, where this oracle calls it bogus too.
 */
async function isAlias(name: DomainName, theirs: Outcome): Promise<boolean> {
  if (name.toString().includes('.moved.')) return true;
  const data = theirs.state === 'bogus' ? (await oracle(name, TYPE.CNAME)).data : theirs.data;
  return data.some((line) => line.includes(' CNAME '));
}

/** What a validating resolver says of it: AD, nothing, or SERVFAIL. */
async function oracle(name: DomainName, type: number): Promise<Outcome> {
  const query = encodeQuery(name, type);
  query.writeUInt16BE(0x0100, 2);
  let message = await exchangeUdp(query);
  if ((message.flags & 0x0200) !== 0)
    message = readMessage(await oracleTcp.exchange(query, { signal: AbortSignal.timeout(10_000) }));
  const isBogus = message.rcode === 2;
  const state = isBogus ? 'bogus' : (message.flags & 0x20) !== 0 ? 'secure' : 'insecure';
  const data = message.answer
    .filter((record) => record.type !== TYPE.RRSIG)
    .map((record) => `${record.name} ${typeName(record.type)} ${rdataText(record.type, record.rdata)}`);
  return { state, rcode: message.rcode, data: [...new Set(data)].sort(), reason: '' };
}

async function exchangeUdp(query: Buffer): Promise<Message> {
  return readMessage(await udpUpstream(ORACLE).exchange(query, { signal: AbortSignal.timeout(10_000) }));
}
