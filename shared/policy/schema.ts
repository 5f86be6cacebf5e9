import * as v from 'valibot';
import { formatAddress, parseAddress } from './address.ts';
import { field, listWords, type Report, readList, readWord } from './field.ts';
import { isNumericSpelling, parseHost, readPattern } from './name.ts';
import { ALL_PORTS, formatPorts, isPort, joinPorts, readPorts } from './ports.ts';
import { formatPrefix, hostPrefix, type Prefix, parsePrefix } from './prefix.ts';
import { DNSSEC_MODES, type EgressRule, type IngressRule, PROTOCOLS, type Protocol } from './types.ts';

/** What a rule's name may look like: never like a path (`egress.allow[0]`), which names the rules without one. */
const RULE_NAME = /^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,62}$/;

const name = field('a name for the rule', (value, report) => {
  if (typeof value === 'string' && RULE_NAME.test(value)) return value;
  report('up to 63 letters, digits, spaces and . _ / -, a letter or digit first');
  return '';
});

const fqdn = field('a name', (value, report) =>
  distinct(
    readList(
      value,
      'a name such as api.example.com, *.example.com or **.example.com',
      report,
      (entry, complain) => {
        if (typeof entry !== 'string') return undefined;
        const reading = readPattern(entry);
        if ('pattern' in reading) return { key: reading.pattern, entry: reading.pattern };
        complain(reading.expected);
        return undefined;
      },
    ),
    Array.isArray(value),
    report,
  ),
);

const ip = field('an IP address', (value, report) => readPrefixes(value, report, readIp));
const cidr = field('a CIDR block', (value, report) => readPrefixes(value, report, readCidr));

const ports = field('ports: a number, a range such as "8000-8100", or a list of those', (value, report) => {
  const entries = readList(value, 'ports', report, (entry, complain) => {
    const range = readPorts(entry, complain);
    return range === undefined ? undefined : { key: formatPorts([range]), entry: range };
  });
  return joinPorts(distinct(entries, Array.isArray(value), report));
});

const protocol = field(listWords(PROTOCOLS), (value, report) => {
  const entries = readList(value, listWords(PROTOCOLS), report, (entry, complain) => {
    const word = readWord(PROTOCOLS, entry, complain);
    return word === undefined ? undefined : { key: word, entry: word };
  });
  const found = distinct(entries, Array.isArray(value), report);
  return PROTOCOLS.filter((candidate) => found.includes(candidate));
});

const dnssec = field(listWords(DNSSEC_MODES), (value, report) => readWord(DNSSEC_MODES, value, report));
const tls = field('sni', (value, report) => readWord(['sni'] as const, value, report));

function readPrefixes(
  value: unknown,
  report: Report,
  one: (entry: unknown, complain: (expected: string) => void) => Prefix | undefined,
): Prefix[] {
  const entries = readList(value, 'an address', report, (entry, complain) => {
    const prefix = one(entry, complain);
    return prefix === undefined ? undefined : { key: formatPrefix(prefix), entry: prefix };
  });
  return distinct(entries, Array.isArray(value), report);
}

function readIp(entry: unknown, complain: (expected: string) => void): Prefix | undefined {
  const address = typeof entry === 'string' ? parseAddress(entry) : undefined;
  if (address !== undefined) return hostPrefix(address);
  if (typeof entry === 'string' && entry.includes('/') && 'prefix' in parsePrefix(entry)) {
    complain(`one address; for a block write cidr: ${entry}`);
  } else if (typeof entry === 'string' && isNumericSpelling(entry)) {
    complain('a dotted quad of four decimal numbers from 0 to 255, without leading zeros');
  } else if (typeof entry === 'string' && parseHost(entry).kind === 'name') {
    complain(`an IP address; for a name write fqdn: ${entry}`);
  } else complain('an IP address such as 192.0.2.7 or "2001:db8::7"');
  return undefined;
}

function readCidr(entry: unknown, complain: (expected: string) => void): Prefix | undefined {
  if (typeof entry !== 'string') {
    complain('a CIDR block such as 10.0.0.0/8 or 2001:db8::/32');
    return undefined;
  }
  const reading = parsePrefix(entry);
  if ('prefix' in reading) return reading.prefix;
  complain(reading.expected);
  return undefined;
}

/** The entries sorted by key; one that stands twice is reported with the place of the first. */
function distinct<T>(entries: readonly { key: string; entry: T }[], isList: boolean, report: Report): T[] {
  const first = new Map<string, { index: number; entry: T }>();
  for (const [index, { key, entry }] of entries.entries()) {
    const earlier = first.get(key);
    if (earlier === undefined) first.set(key, { index, entry });
    // Places shift when an entry before could not be read; then only the value is sure.
    else if (isList)
      report(`no entry twice: ${key} stands in this list already, at [${earlier.index}]`, index);
  }
  return [...first].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { entry }]) => entry);
}

const RULE_ENTRIES = {
  name: v.optional(name),
  ip: v.optional(ip),
  cidr: v.optional(cidr),
  ports: v.optional(ports),
  protocol: v.optional(protocol),
};
const NAME_ENTRIES = {
  ...RULE_ENTRIES,
  fqdn: v.optional(fqdn),
  dnssec: v.optional(dnssec),
  tls: v.optional(tls),
};

type RuleInput = v.InferOutput<ReturnType<typeof nameRule>>;
export type RuleBody = Omit<EgressRule, 'label' | 'path'> & { readonly name?: string };

function nameRule() {
  return v.strictObject(NAME_ENTRIES);
}

/** A rule of `effect`; the operator's guard (`names` false) has rules without `fqdn`, since it never sees names. */
export function ruleSchema(effect: 'allow' | 'deny', names: boolean): v.GenericSchema<unknown, RuleBody> {
  const shape: v.GenericSchema<unknown, RuleInput> = names ? nameRule() : v.strictObject(RULE_ENTRIES);
  return v.pipe(
    shape,
    v.rawTransform<RuleInput, RuleBody>(({ dataset, addIssue, NEVER }) => {
      const rule = dataset.value;
      const problems = ruleProblems(rule, effect, names);
      for (const { key, found, expected } of problems) {
        const item = { type: 'object', origin: 'value', input: { ...rule }, key, value: undefined } as const;
        const place = key === '' ? {} : { path: [item] satisfies [v.IssuePathItem] };
        addIssue({ message: expected, input: found, received: found, ...place });
      }
      return problems.length > 0 ? NEVER : ruleBody(rule, effect);
    }),
  );
}

interface RuleProblem {
  readonly key: string;
  readonly found: string;
  readonly expected: string;
}

/** What the keys of one rule must be to each other. */
function ruleProblems(rule: RuleInput, effect: 'allow' | 'deny', names: boolean): RuleProblem[] {
  const problems: RuleProblem[] = [];
  const add = (key: string, found: string, expected: string): void => {
    problems.push({ key, found, expected });
  };
  const kinds = (['fqdn', 'ip', 'cidr'] as const).filter((kind) => rule[kind] !== undefined);
  const wanted = names ? 'exactly one of fqdn, ip and cidr' : 'exactly one of ip and cidr';
  if (kinds.length === 0) add('', 'none of them', wanted);
  if (kinds.length > 1) add(kinds[1] ?? '', kinds.join(' and '), `${wanted} (make two rules of it)`);
  const onlyIcmp = rule.protocol?.every((word) => word === 'icmp') ?? false;
  if (onlyIcmp && rule.ports !== undefined) add('ports', 'ports', 'no ports: ICMP has none');
  if (effect === 'allow' && rule.ports === undefined && !onlyIcmp) {
    add('ports', 'nothing', 'ports: a number, a range such as "8000-8100", or a list of those');
  }
  if (rule.fqdn === undefined && kinds.length > 0) {
    if (rule.dnssec !== undefined) add('dnssec', rule.dnssec, 'dnssec in fqdn rules only');
    if (rule.tls !== undefined) add('tls', rule.tls, 'tls in fqdn rules only');
  }
  if (effect === 'deny' && rule.fqdn !== undefined) {
    if (rule.dnssec !== undefined) add('dnssec', rule.dnssec, 'dnssec in allow rules only');
    if (rule.tls !== undefined) add('tls', rule.tls, 'tls in allow rules only');
  }
  const onlyTcp = rule.protocol?.every((word) => word === 'tcp') ?? true;
  if (effect === 'allow' && rule.tls !== undefined && rule.fqdn !== undefined && !onlyTcp) {
    add('tls', rule.tls, 'tls only where protocol is tcp');
  }
  return problems;
}

function ruleBody(rule: RuleInput, effect: 'allow' | 'deny'): RuleBody {
  const protocols = rule.protocol ?? (effect === 'allow' ? ['tcp'] : denied(rule));
  const hasPorts = protocols.some((word) => word !== 'icmp');
  return {
    ...(rule.name === undefined ? {} : { name: rule.name }),
    fqdn: rule.fqdn ?? [],
    prefixes: rule.ip ?? rule.cidr ?? [],
    protocols,
    ports: hasPorts ? (rule.ports ?? ALL_PORTS) : [],
    dnssec: rule.dnssec ?? 'validate',
    ...(rule.tls === undefined ? {} : { tls: rule.tls }),
  };
}

/** A deny rule without protocol is for all of them; with ports, for those that have ports. */
function denied(rule: RuleInput): readonly Protocol[] {
  return rule.ports === undefined ? PROTOCOLS : ['tcp', 'udp'];
}

const servicePort = field('a port from 1 to 65535', (value, report) => {
  if (typeof value === 'number' && isPort(value)) return value;
  const digits = typeof value === 'string' && /^\d+$/.test(value) && isPort(Number(value));
  report(digits ? `${Number(value)} as a number, without quotes` : 'a port from 1 to 65535');
  return 0;
});

const TO = 'where the workload listens, such as 127.0.0.1:8443 or "[::1]:8443"';
const to = field(TO, (value, report) => {
  const match = typeof value === 'string' ? /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(value) : null;
  const address = parseAddress(match?.[1] ?? match?.[2] ?? '');
  const port = Number(match?.[3]);
  if (address !== undefined && isPort(port)) return { address: formatAddress(address), port };
  report(match?.[2] !== undefined && isPort(port) ? `${TO}: an address, names are not resolved here` : TO);
  return { address: '', port: 0 };
});

const INGRESS_ENTRIES = {
  name: v.optional(name),
  port: servicePort,
  to,
  protocol: v.optional(
    field('tcp or udp', (value, report) => readWord(['tcp', 'udp'] as const, value, report)),
    'tcp',
  ),
  proxyProtocol: v.optional(field('v2', (value, report) => readWord(['v2'] as const, value, report))),
  from: v.optional(field('CIDR blocks', (value, report) => readPrefixes(value, report, readFrom))),
};

function readFrom(entry: unknown, complain: (expected: string) => void): Prefix | undefined {
  const address = typeof entry === 'string' ? parseAddress(entry) : undefined;
  return address === undefined ? readCidr(entry, complain) : hostPrefix(address);
}

export type IngressBody = Omit<IngressRule, 'label' | 'path'> & { readonly name?: string };

export function ingressSchema(): v.GenericSchema<unknown, IngressBody> {
  return v.pipe(
    v.strictObject(INGRESS_ENTRIES),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const { name, port, to, protocol, proxyProtocol, from } = dataset.value;
      if (proxyProtocol !== undefined && protocol === 'udp') {
        const input = { ...dataset.value };
        const item = {
          type: 'object',
          origin: 'value',
          input,
          key: 'proxyProtocol',
          value: proxyProtocol,
        } as const;
        addIssue({ message: 'proxyProtocol with tcp only', input: proxyProtocol, path: [item] });
        return NEVER;
      }
      const body: IngressBody = {
        ...(name === undefined ? {} : { name }),
        port,
        protocol: protocol ?? 'tcp',
        to,
        ...(proxyProtocol === undefined ? {} : { proxyProtocol }),
        ...(from === undefined ? {} : { from }),
      };
      return body;
    }),
  );
}
