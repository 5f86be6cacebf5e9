import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAnchors, TrustAnchors } from '../../../guest/dns/anchors.ts';
import { DNS_LIMITS } from '../../../guest/dns/limits.ts';
import { DomainName } from '../../../guest/dns/name.ts';
import { TYPE } from '../../../guest/dns/types.ts';
import { DIRECT, resolverFor } from '../../../guest/dns/upstream/resolvers.ts';
import { Validator } from '../../../guest/dns/validator.ts';
import type { Verdict } from '../../../guest/dns/verdict.ts';
import { flipAll } from './flips.ts';
import { startServers, UPSTREAMS, waitForServers } from './servers.ts';
import { TamperProxy } from './tamper-proxy.ts';
import { TAMPERINGS, type Tampering } from './tamperings.ts';
import { buildZones } from './zones.ts';

/**
 * Run inside a network namespace of its own: `tampering.ts quick|slow`. The signed hierarchy through a parent that
 * tampers, between our validator and both real resolvers. Prints what went wrong, and last a summary.
 */
const isSlow = process.argv[2] === 'slow';

type Kind = 'positive' | 'negative' | 'unsigned';
const QUESTIONS: readonly (readonly [string, number, Kind])[] = [
  ['www.a13.test.', TYPE.A, 'positive'],
  ['there.a15.test.', TYPE.A, 'positive'],
  ['x.wild.a14.test.', TYPE.A, 'positive'],
  ['www.moved.a08.test.', TYPE.A, 'positive'],
  ['none.a13.test.', TYPE.A, 'negative'],
  ['none.a10.test.', TYPE.A, 'negative'],
  ['www.a15.test.', TYPE.MX, 'negative'],
  ['www.plain.test.', TYPE.A, 'unsigned'],
];

const folder = mkdtempSync(join(tmpdir(), 'postern-tampering-'));
buildZones(folder);
const children = startServers(folder);
try {
  await waitForServers();
  const text = readFileSync(join(folder, 'root.anchor'), 'utf8');
  const anchors = new TrustAnchors(parseAnchors(text, 'root.anchor'));
  let flips = 0;
  for (const [through, upstream] of Object.entries(UPSTREAMS)) {
    const proxy = await TamperProxy.open(upstream);
    for (const tampering of TAMPERINGS) {
      for (const ways of ['both', 'tcp'] as const) {
        for (const problem of await tamperWith(proxy, anchors, tampering, ways)) {
          process.stdout.write(`${JSON.stringify({ through, title: tampering.title, ways, problem })}\n`);
        }
      }
    }
    proxy.close();
    if (through !== 'unbound' && !isSlow) continue;
    flips += await flipAll(upstream, anchors, isSlow, (problem) => {
      process.stdout.write(`${JSON.stringify({ through, problem })}\n`);
    });
  }
  process.stdout.write(`${JSON.stringify({ done: TAMPERINGS.length, flips })}\n`);
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = 0;

async function tamperWith(
  proxy: TamperProxy,
  anchors: TrustAnchors,
  { tamper, expected, deadlineMs, udpSuffices }: Tampering,
  ways: 'both' | 'tcp',
): Promise<string[]> {
  const { udp, ...streams } = DIRECT;
  const carrier = ways === 'both' ? DIRECT : streams;
  const newValidator = (): Validator =>
    new Validator({
      resolvers: [resolverFor({ ...proxy.address, protocol: 'plain' }, carrier)],
      anchors,
      clock: () => Math.floor(Date.now() / 1000),
      limits: { deadlineMs: deadlineMs ?? DNS_LIMITS.deadlineMs },
    });
  const askAll = (validator: Validator): Promise<Verdict[]> =>
    Promise.all(QUESTIONS.map(([name, type]) => validator.resolve(DomainName.parse(name), type)));
  proxy.tamper = ({ answer }) => [{ octets: answer }];
  const honest = await askAll(newValidator());
  const tcpBefore = proxy.askedOverTcp;
  proxy.tamper = tamper;
  const verdicts = await askAll(newValidator());
  const problems = QUESTIONS.flatMap(([name, , kind], index) => {
    const problem = judge(
      verdicts[index],
      honest[index],
      kind,
      kind === 'unsigned' ? undefined : expected[kind],
    );
    return problem === undefined ? [] : [`${name} ${problem}`];
  });
  if (udpSuffices && ways === 'both' && proxy.askedOverTcp > tcpBefore) problems.push('needed TCP');
  return problems;
}

function judge(
  verdict: Verdict | undefined,
  honest: Verdict | undefined,
  kind: Kind,
  expected: 'honest' | 'bogus' | undefined,
): string | undefined {
  if (verdict === undefined || honest === undefined) return 'has no verdict';
  const right = kind === 'unsigned' ? 'insecure' : 'secure';
  if (honest.state !== right) return `is ${honest.state} without tampering: ${honest.reason}`;
  const said = `is ${verdict.state}: ${verdict.reason}`;
  if (kind === 'unsigned')
    return verdict.state === 'insecure' || verdict.state === 'bogus' ? undefined : said;
  if (expected === 'bogus')
    return verdict.state === 'bogus' && verdict.answers.length === 0 ? undefined : said;
  return contentOf(verdict) === contentOf(honest) ? undefined : said;
}

function contentOf({ state, rcode, answers }: Verdict): string {
  const records = answers.map(
    ({ name, type, rdata }) => `${name} ${type} ${rdata.map((one) => one.toString('hex'))}`,
  );
  return `${state} ${rcode} ${records.join(' ')}`;
}
