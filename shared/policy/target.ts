import { canonicalAddress, formatAddress, type IpAddress, parseAddress } from './address.ts';
import { canonicalName, isNumericSpelling } from './name.ts';
import { isPort } from './ports.ts';
import type { DenyReason } from './reasons.ts';
import { type Destination, DNSSEC_STATES, type DnssecState, PROTOCOLS, type Protocol } from './types.ts';

/** A destination in its one spelling. */
export interface Target {
  readonly protocol: Protocol;
  /** 0 for ICMP. */
  readonly port: number;
  readonly name?: string;
  readonly address?: IpAddress;
  readonly addressText?: string;
  readonly dnssec?: DnssecState;
}

/** Brings a destination to its one spelling, or says why it is none. */
export function readTarget(destination: Destination): Target | { readonly refused: DenyReason } {
  const { protocol, dnssec } = destination;
  if (!PROTOCOLS.includes(protocol)) return { refused: 'invalid-destination' };
  if (dnssec !== undefined && !DNSSEC_STATES.includes(dnssec)) {
    return { refused: 'invalid-destination' };
  }
  const port = protocol === 'icmp' ? 0 : destination.port;
  if (protocol !== 'icmp' && !isPort(port)) return { refused: 'invalid-port' };
  const named = destination.name;
  const name = named === undefined ? undefined : canonicalName(named);
  if (named !== undefined && name === undefined) {
    return { refused: isNumericSpelling(named) ? 'numeric-spelling' : 'invalid-name' };
  }
  const text = destination.address;
  if (text === undefined) {
    if (name === undefined) return { refused: 'invalid-destination' };
    return { protocol, port, name, ...(dnssec === undefined ? {} : { dnssec }) };
  }
  const parsed = parseAddress(text);
  if (parsed === undefined) {
    return { refused: isNumericSpelling(text) ? 'numeric-spelling' : 'invalid-address' };
  }
  const address = canonicalAddress(parsed);
  const addressText = parsed.family === 4 ? text : formatAddress(address);
  return {
    protocol,
    port,
    address,
    addressText,
    ...(name === undefined ? {} : { name }),
    ...(dnssec === undefined ? {} : { dnssec }),
  };
}
