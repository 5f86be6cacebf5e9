import type { Problem } from '../errors.ts';
import { formatAddress, parseAddress } from './address.ts';
import type { Question } from './explain.ts';
import { listWords } from './field.ts';
import { isNumericSpelling, parseHost } from './name.ts';
import { isPort } from './ports.ts';
import { DNSSEC_STATES, type DnssecState, PROTOCOLS, type Protocol } from './types.ts';

/** The options of `postern policy explain` as the command line gives them. */
export interface ExplainOptions {
  readonly to: string;
  readonly protocol: string;
  readonly address?: readonly string[];
  readonly dnssec?: string;
}

/** Reads a command line's question; every mistake in it is listed. */
export function readQuestion(
  options: ExplainOptions,
): { readonly question: Question } | { readonly problems: readonly Problem[] } {
  const problems: Problem[] = [];
  const complain = (path: string, found: string, expected: string): void => {
    problems.push({ path, found: JSON.stringify(found), expected });
  };
  const protocol = PROTOCOLS.find((word) => word === options.protocol);
  if (protocol === undefined) complain('--protocol', options.protocol, listWords(PROTOCOLS));
  const dnssec = DNSSEC_STATES.find((word) => word === options.dnssec);
  if (options.dnssec !== undefined && dnssec === undefined) {
    complain('--dnssec', options.dnssec, listWords(DNSSEC_STATES));
  }
  const target = readTo(options.to, protocol ?? 'tcp', (expected) => complain('--to', options.to, expected));
  const addresses = readAddresses(options.address ?? [], complain);
  if (target?.address !== undefined && options.address !== undefined) {
    complain('--address', options.address.join(' '), 'none, since --to is an address already');
  }
  if (problems.length > 0 || protocol === undefined || target === undefined) return { problems };
  return { question: questionOf(protocol, target, addresses, dnssec) };
}

function readAddresses(
  given: readonly string[],
  complain: (path: string, found: string, expected: string) => void,
): string[] {
  for (const [index, text] of given.entries()) {
    // A number that some read as an address is a question worth an answer (deny), not a slip of the pen.
    if (parseAddress(text) === undefined && !isNumericSpelling(text)) {
      complain(`--address[${index}]`, text, 'a dotted quad or RFC 4291 text');
    }
  }
  return [...given];
}

interface Target {
  readonly port: number;
  readonly name?: string;
  readonly address?: string;
}

function questionOf(
  protocol: Protocol,
  { port, name, address }: Target,
  addresses: readonly string[],
  dnssec: DnssecState | undefined,
): Question {
  return {
    protocol,
    port,
    addresses: address === undefined ? addresses : [address],
    ...(name === undefined ? {} : { name }),
    ...(dnssec === undefined ? {} : { dnssec }),
  };
}

const TO = 'HOST:PORT, such as api.example.com:443, 192.0.2.7:443 or [2001:db8::1]:443';

function readTo(text: string, protocol: Protocol, complain: (expected: string) => void): Target | undefined {
  const match = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(text);
  const bare = parseAddress(text)?.family === 6 ? text : undefined;
  const hostText = bare ?? match?.[1];
  const portText = bare === undefined ? match?.[2] : undefined;
  if (hostText === undefined || hostText === '') {
    complain(text.includes('://') ? 'HOST:PORT, not a URL' : TO);
    return undefined;
  }
  const port = portText !== undefined && /^\d{1,5}$/.test(portText) ? Number(portText) : Number.NaN;
  if (portText === undefined ? protocol !== 'icmp' : !isPort(port)) {
    complain(portText === undefined ? TO : 'a port from 1 to 65535 behind the colon');
    return undefined;
  }
  const host = parseHost(hostText);
  if (host.kind === 'invalid') complain(host.expected);
  if (host.kind === 'invalid') return undefined;
  const place = portText === undefined ? { port: 0 } : { port };
  if (host.kind === 'address') return { ...place, address: formatAddress(host.address) };
  return { ...place, name: host.kind === 'name' ? host.name : hostText };
}
