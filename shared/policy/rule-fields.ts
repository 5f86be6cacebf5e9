import { distinct, field, listWords, readList, readWord } from './field.ts';
import { readPattern } from './name.ts';
import { formatPorts, joinPorts, readPorts } from './ports.ts';
import { readCidr, readIp, readPrefixes } from './prefix-field.ts';
import { DNSSEC_MODES, PROTOCOLS } from './types.ts';

/** What a rule's name may look like: never like a path (`egress.allow[0]`), which names the rules without one. */
const RULE_NAME = /^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,62}$/;

export const ruleName = field('a name for the rule', (value, report) => {
  if (typeof value === 'string' && RULE_NAME.test(value)) return value;
  report('up to 63 letters, digits, spaces and . _ / -, a letter or digit first');
  return '';
});

export const fqdn = field('a name', (value, report) =>
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
    report,
  ),
);

export const ip = field('an IP address', (value, report) => readPrefixes(value, report, readIp));
export const cidr = field('a CIDR block', (value, report) => readPrefixes(value, report, readCidr));

export const ports = field(
  'ports: a number, a range such as "8000-8100", or a list of those',
  (value, report) => {
    const entries = readList(value, 'ports', report, (entry, complain) => {
      const range = readPorts(entry, complain);
      return range === undefined ? undefined : { key: formatPorts([range]), entry: range };
    });
    return joinPorts(distinct(entries, report));
  },
);

export const protocol = field(listWords(PROTOCOLS), (value, report) => {
  const entries = readList(value, listWords(PROTOCOLS), report, (entry, complain) => {
    const word = readWord(PROTOCOLS, entry, complain);
    return word === undefined ? undefined : { key: word, entry: word };
  });
  const found = distinct(entries, report);
  return PROTOCOLS.filter((candidate) => found.includes(candidate));
});

export const dnssec = field(listWords(DNSSEC_MODES), (value, report) =>
  readWord(DNSSEC_MODES, value, report),
);
export const tls = field('sni', (value, report) => readWord(['sni'] as const, value, report));
