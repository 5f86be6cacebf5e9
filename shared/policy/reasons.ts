/** Why a destination is refused: the closed set of codes, with what each tells a person. `docs/policy.md` lists them. */
export const DENY_REASONS = {
  'no-rule': 'no allow rule names the destination',
  'port-not-allowed': 'allow rules name the destination, but not with this port',
  'protocol-not-allowed': 'allow rules name the destination, but not with this protocol',
  'denied-by-rule': 'a deny rule names the destination; deny rules win',
  'no-lease': 'no address rule allows the address, and no name that the guest resolved leads there now',
  'special-address':
    'the address is special (loopback, link-local, metadata, private, multicast and the like) and no address rule names it',
  'dnssec-bogus': 'the answer for the name failed DNSSEC validation',
  'dnssec-indeterminate': 'whether the answer for the name is signed could not be found out',
  'dnssec-insecure': 'the rule requires a signed answer, and the zone is not signed',
  'dnssec-unknown': 'the rule requires a signed answer, and nobody validated this one',
  'numeric-spelling': 'the host is a number that some programs read as an address; write the address itself',
  'invalid-name': 'the name is not a valid host name',
  'invalid-address': 'the address is not a dotted quad or RFC 4291 text',
  'invalid-port': 'the port is not a number from 1 to 65535',
  'invalid-destination':
    'the destination has neither name nor address, or an unknown protocol or DNSSEC state',
} as const;
export type DenyReason = keyof typeof DENY_REASONS;

/** Why a destination is allowed. */
export const ALLOW_REASONS = {
  rule: 'an allow rule names the destination',
  lease: 'the address was resolved from a name that an allow rule names',
} as const;
export type AllowReason = keyof typeof ALLOW_REASONS;

/** Why an inbound connection is refused. */
export const INGRESS_REASONS = {
  'no-ingress': 'no ingress entry has this service port and protocol',
  'source-not-allowed': 'the ingress entry does not list the client’s address in from',
} as const;
export type IngressReason = keyof typeof INGRESS_REASONS;

/** Why a flow under `tls: sni` is ended at its first bytes. */
export const SNI_REASONS = {
  'sni-not-tls': 'the first bytes are not TLS',
  'sni-malformed': 'the first bytes are no well-formed ClientHello, or one of more than 32 KiB',
  'sni-missing': 'the ClientHello names no server',
  'sni-other-name': 'the ClientHello names another server',
  'sni-encrypted': 'the ClientHello hides the name that counts (Encrypted Client Hello)',
} as const;
export type SniReason = keyof typeof SNI_REASONS;
