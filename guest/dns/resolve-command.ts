import { readFile } from 'node:fs/promises';
import { Command } from 'commander';
import { EXIT } from '../../shared/cli/exit.ts';
import { PosternError } from '../../shared/errors.ts';
import { parseAnchors, TrustAnchors } from './anchors.ts';
import { chainLines, explain } from './explain.ts';
import { DomainName } from './name.ts';
import { answerLines } from './presentation.ts';
import { ROOT_ANCHORS } from './root-anchor.ts';
import { rcodeName, typeNumber } from './types.ts';
import { parseResolverAddress, type ResolverAddress } from './upstream/address.ts';
import { DIRECT, resolverFor } from './upstream/resolvers.ts';
import { Validator } from './validator.ts';
import type { Verdict } from './verdict.ts';

interface ResolveOptions {
  readonly server: readonly string[];
  readonly trustAnchor?: string;
  readonly negativeAnchor: readonly string[];
  readonly at?: string;
  readonly json?: true;
  readonly explain?: true;
}

const RESOLV_CONF = '/etc/resolv.conf';

export function command(): Command {
  const gather = (value: string, list: readonly string[]): readonly string[] => [...list, value];
  return new Command('resolve')
    .description('ask a resolver that is not trusted, and validate its answer from the trust anchor')
    .argument('<name>', 'the name to ask for')
    .argument('[type]', 'its type: A, AAAA, HTTPS, TYPE65 ...', 'A')
    .option('--server <ip[:port]>', 'resolver to ask, several in turn (default: the system’s)', gather, [])
    .option('--trust-anchor <file>', 'DS or DNSKEY records, one a line (default: the root’s, shipped)')
    .option('--negative-anchor <name>', 'take this zone as unsigned (RFC 7646); may be repeated', gather, [])
    .option('--at <epoch>', 'seconds since 1970 to validate at (default: this machine’s clock)')
    .option('--json', 'print the verdict as one line of JSON')
    .option('--explain', 'draw the chain of trust')
    .addHelpText('after', EXAMPLES)
    .action(run);
}

const EXAMPLES = `
Examples:
  postern resolve www.example.com
  postern resolve example.com AAAA --server 192.0.2.53 --explain
  postern resolve example.com --server tls:192.0.2.53#dns.example.net
  postern resolve example.com --server https:192.0.2.53#dns.example.net/dns-query
  postern resolve db.internal.example --server 192.0.2.53:5353 --trust-anchor internal.ds --json

The verdict is secure (proven from the anchor), insecure (proven to be unsigned), bogus (wrong, stripped, or not to be
had) or indeterminate (no anchor above the name).
Exit codes: 0 secure or insecure, 1 bogus or indeterminate, 2 bad input.`;

async function run(nameText: string, typeText: string, options: ResolveOptions): Promise<void> {
  const name = DomainName.parse(nameText);
  const type = typeNumber(typeText);
  if (type === undefined) throw badInput('type', typeText, 'an RR type such as A or TYPE65');
  const servers = await readServers(options.server);
  const anchors = await readAnchors(options.trustAnchor);
  const at = options.at === undefined ? undefined : readEpoch(options.at);
  const validator = new Validator({
    resolvers: servers.map((server) => resolverFor(server, DIRECT)),
    anchors: new TrustAnchors(
      anchors,
      options.negativeAnchor.map((text) => DomainName.parse(text)),
    ),
    clock: () => at ?? Math.floor(Date.now() / 1000),
  });
  const verdict = await validator.resolve(name, type);
  if (options.explain === true) process.stdout.write(explain(verdict));
  else process.stdout.write(`${JSON.stringify(toJson(verdict), undefined, options.json === true ? 0 : 2)}\n`);
  const isUsable = verdict.state === 'secure' || verdict.state === 'insecure';
  process.exitCode = isUsable ? EXIT.ok : EXIT.failed;
}

function toJson(verdict: Verdict): Record<string, unknown> {
  return {
    status: verdict.state,
    rcode: rcodeName(verdict.rcode),
    answers: verdict.answers.flatMap((rrset) => answerLines(rrset, verdict.ttlSeconds)),
    reason: verdict.reason,
    ...(verdict.code === undefined ? {} : { code: verdict.code }),
    chain: chainLines(verdict),
  };
}

async function readServers(texts: readonly string[]): Promise<ResolverAddress[]> {
  if (texts.length > 0) return texts.map((text) => parseServer(text));
  const text = await readFile(RESOLV_CONF, 'utf8').catch((cause: unknown) => {
    throw new PosternError('ERR_CONFIG_UNREADABLE', `${RESOLV_CONF} cannot be read; name a --server`, {
      cause,
    });
  });
  const found = [...text.matchAll(/^nameserver\s+([0-9a-fA-F.:]+)/gm)].map(([, address = '']) => address);
  if (found.length === 0) throw badInput('--server', 'nothing', `IP:PORT (${RESOLV_CONF} names no resolver)`);
  return found.map((address) => parseServer(address));
}

function parseServer(text: string): ResolverAddress {
  const server = parseResolverAddress(text);
  if (server === undefined) {
    throw badInput('--server', text, 'IP, IP:PORT, [IPv6]:PORT, udp:IP, tls:IP#NAME or https:IP#NAME/path');
  }
  return server;
}

async function readAnchors(file: string | undefined): Promise<ReturnType<typeof parseAnchors>> {
  if (file === undefined) return parseAnchors(ROOT_ANCHORS, 'the shipped anchors');
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new PosternError('ERR_CONFIG_UNREADABLE', `${file}: cannot be read`, { cause });
  });
  return parseAnchors(text, file);
}

function readEpoch(text: string): number {
  if (!/^\d{1,12}$/.test(text)) throw badInput('--at', text, 'seconds since 1970');
  return Number(text);
}

function badInput(path: string, found: string, expected: string): PosternError {
  const problem = { path, found: JSON.stringify(found), expected };
  return new PosternError('ERR_CONFIG_INVALID', `${path}: expected ${expected}, found ${problem.found}`, {
    problems: [problem],
  });
}
