import type { Prefix } from './prefix.ts';

export type Protocol = 'tcp' | 'udp' | 'icmp';
export const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp', 'icmp'];

/** RFC 4033 section 5. */
export type DnssecState = 'secure' | 'insecure' | 'bogus' | 'indeterminate';
export const DNSSEC_STATES: readonly DnssecState[] = ['secure', 'insecure', 'bogus', 'indeterminate'];

/** How much of DNSSEC a name rule asks for. */
export type DnssecMode = 'require' | 'validate' | 'off';
export const DNSSEC_MODES: readonly DnssecMode[] = ['require', 'validate', 'off'];

/** Both ends included. */
export interface PortRange {
  readonly from: number;
  readonly to: number;
}

/** One rule in its one spelling: lists sorted and without repetition, so that equal rules are equal values. */
export interface EgressRule {
  /** What decisions and logs call the rule: its name, or else its path. */
  readonly label: string;
  /** Where it stands in the file, `egress.allow[0]`. */
  readonly path: string;
  /** Canonical patterns; empty for an address rule. */
  readonly fqdn: readonly string[];
  /** Blocks; empty for a name rule. */
  readonly prefixes: readonly Prefix[];
  readonly protocols: readonly Protocol[];
  /** For TCP and UDP. Empty when the rule is for ICMP alone. */
  readonly ports: readonly PortRange[];
  readonly dnssec: DnssecMode;
  readonly tls?: 'sni';
}

export interface Egress {
  readonly allow: readonly EgressRule[];
  readonly deny: readonly EgressRule[];
}

export interface IngressRule {
  readonly label: string;
  readonly path: string;
  /** The service port, as the parent's forward names it. */
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
  /** Where the workload listens. */
  readonly to: { readonly address: string; readonly port: number };
  readonly proxyProtocol?: 'v2';
  /** Clients that may come; undefined for all. The parent names the client, so this is no stronger than it. */
  readonly from?: readonly Prefix[];
}

export interface Policy {
  readonly version: 1;
  readonly egress: Egress;
  readonly ingress: readonly IngressRule[];
}

/** Where somebody wants to go. Without an address: may the name be resolved, and dialled on this port at all. */
export interface Destination {
  readonly protocol: Protocol;
  /** Ignored for ICMP, which has none. */
  readonly port: number;
  /** Any spelling of a name. */
  readonly name?: string;
  /** Canonical text of an address. */
  readonly address?: string;
  /** How the name's answer validated; undefined when nothing is known (a plain resolver). */
  readonly dnssec?: DnssecState;
}

/** A name that resolved to an address and whose answer still holds. */
export interface Lease {
  readonly name: string;
  readonly dnssec?: DnssecState;
}

export interface LeaseView {
  /** The live leases of an address (canonical text), oldest first. */
  namesOf(address: string): readonly Lease[];
}
