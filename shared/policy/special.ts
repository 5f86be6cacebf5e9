import { canonicalAddress, type IpAddress, ipv4, parseAddress } from './address.ts';
import { type Prefix, parsePrefix, prefixContains } from './prefix.ts';

/** Space that a name has no business to resolve to. Documentation space (RFC 5737, 3849) is not among it. */
export type SpecialKind =
  | 'metadata'
  | 'loopback'
  | 'link-local'
  | 'unspecified'
  | 'multicast'
  | 'broadcast'
  | 'private'
  | 'cgnat'
  | 'unique-local'
  | 'reserved';

export interface Special {
  readonly kind: SpecialKind;
  /**
   * The shortest prefix length of an address rule that names the address: 0 when any rule that covers it does.
   * A rule for 0.0.0.0/0 means "the internet"; it must not hand out loopback or the credentials of the host.
   */
  readonly namedByLength: number;
}

/** An IPv4 address inside an IPv6 one; `offset` is the bit at which it starts. */
export interface EmbeddedAddress {
  readonly address: IpAddress;
  readonly offset: number;
}

interface Block {
  readonly prefix: Prefix;
  readonly kind: SpecialKind;
  readonly namedByLength: number;
}

/** From the most to the least dangerous; the first block that holds an address decides its kind. */
const BLOCKS: readonly Block[] = [
  // AWS (IMDS, ECS and EKS credentials), Google's is at the first as well.
  block('metadata', '169.254.169.254/32', 16),
  block('metadata', '169.254.170.2/32', 16),
  block('metadata', '169.254.170.23/32', 16),
  block('metadata', 'fd00:ec2::254/128', 32),
  block('metadata', 'fd00:ec2::23/128', 32),
  block('metadata', 'fd20:ce::254/128', 32),
  // Azure, Alibaba and Oracle keep theirs outside link-local space: only its own address names it.
  block('metadata', '168.63.129.16/32', 32),
  block('metadata', '100.100.100.200/32', 32),
  block('metadata', '192.0.0.192/32', 32),
  block('loopback', '127.0.0.0/8', 8),
  block('loopback', '::1/128', 128),
  block('link-local', '169.254.0.0/16', 16),
  block('link-local', 'fe80::/10', 10),
  // "This network" (RFC 791): Linux connects 0.0.0.0 to loopback.
  block('unspecified', '0.0.0.0/8', 8),
  block('unspecified', '::/128', 128),
  block('multicast', '224.0.0.0/4', 4),
  block('multicast', 'ff00::/8', 8),
  block('broadcast', '255.255.255.255/32', 32),
  block('private', '10.0.0.0/8', 0),
  block('private', '172.16.0.0/12', 0),
  block('private', '192.168.0.0/16', 0),
  block('private', 'fec0::/10', 0),
  // RFC 8215: a translator's own prefix, meaningful inside one network only.
  block('private', '64:ff9b:1::/48', 0),
  block('cgnat', '100.64.0.0/10', 0),
  block('unique-local', 'fc00::/7', 0),
  block('reserved', '192.0.0.0/24', 0),
  block('reserved', '192.88.99.0/24', 0),
  block('reserved', '198.18.0.0/15', 0),
  block('reserved', '240.0.0.0/4', 0),
  block('reserved', '2001:2::/48', 0),
];
const BLOCKS_V4 = BLOCKS.filter(({ prefix }) => prefix.network.family === 4);
const BLOCKS_V6 = BLOCKS.filter(({ prefix }) => prefix.network.family === 6);
const RANK = new Map([...BLOCKS].reverse().map(({ kind }, index) => [kind, BLOCKS.length - index]));
const NONE: readonly EmbeddedAddress[] = [];

function block(kind: SpecialKind, text: string, namedByLength: number): Block {
  const reading = parsePrefix(text);
  if (!('prefix' in reading)) throw new RangeError(`block ${text}: ${reading.expected}`);
  return { kind, prefix: reading.prefix, namedByLength };
}

/** The kind of a special address, embedded IPv4 addresses included. @param address canonical text */
export function specialKindOf(address: string): SpecialKind | undefined {
  const parsed = parseAddress(address);
  return parsed === undefined ? undefined : specialOf(parsed)?.kind;
}

/** The most dangerous reading of an address: as it stands, and as each IPv4 address embedded in it. */
export function specialOf(address: IpAddress): Special | undefined {
  const canonical = canonicalAddress(address);
  let worst = ownSpecial(canonical);
  if (canonical.family === 4) return worst;
  for (const { address: inner, offset } of embeddedAddresses(canonical)) {
    const special = ownSpecial(inner);
    if (special !== undefined && rankOf(special.kind) < rankOf(worst?.kind)) {
      const named = special.namedByLength === 0 ? 0 : offset + special.namedByLength;
      worst = { kind: special.kind, namedByLength: named };
    }
  }
  return worst;
}

function rankOf(kind: SpecialKind | undefined): number {
  return kind === undefined ? BLOCKS.length + 1 : (RANK.get(kind) ?? 0);
}

function ownSpecial(address: IpAddress): Special | undefined {
  for (const entry of address.family === 4 ? BLOCKS_V4 : BLOCKS_V6) {
    if (prefixContains(entry.prefix, address)) return entry;
  }
  if (address.family === 4 || isGlobalUnicast(address)) return undefined;
  return { kind: 'reserved', namedByLength: 0 };
}

/** 2000::/3 is all that IANA has given out (RFC 4291 section 2.4), and the well-known NAT64 prefix. */
function isGlobalUnicast({ w0, w1, w2 }: IpAddress): boolean {
  return w0 >>> 29 === 1 || (w0 === 0x0064ff9b && w1 === 0 && w2 === 0);
}

/**
 * Every IPv4 address that a translator, a tunnel or a kernel may read out of an IPv6 one. Network-specific NAT64
 * prefixes (RFC 6052) cannot be known here: a rule has to name them.
 */
export function embeddedAddresses(address: IpAddress): readonly EmbeddedAddress[] {
  if (address.family === 4) return NONE;
  const { w0, w1, w2, w3 } = address;
  const found: EmbeddedAddress[] = [];
  const add = (value: number, offset: number): void => {
    found.push({ address: ipv4(value), offset });
  };
  // ::a.b.c.d (RFC 4291 2.5.5.1) but not :: and ::1; ::ffff:a.b.c.d; ::ffff:0:a.b.c.d (RFC 2765).
  if (w0 === 0 && w1 === 0 && w2 === 0 && w3 > 1) add(w3, 96);
  if (w0 === 0 && w1 === 0 && w2 === 0xffff) add(w3, 96);
  if (w0 === 0 && w1 === 0 && w2 === 0xffff0000) add(w3, 96);
  if (w0 === 0x0064ff9b && w1 === 0 && w2 === 0) add(w3, 96);
  if (w0 === 0x0064ff9b && w1 >>> 16 === 1) addLocalNat64(address, add);
  // 6to4 (RFC 3056) and Teredo (RFC 4380: server, and client with every bit inverted).
  if (w0 >>> 16 === 0x2002) add(((w0 << 16) | (w1 >>> 16)) >>> 0, 16);
  if (w0 === 0x20010000) {
    add(w1, 32);
    add(~w3 >>> 0, 96);
  }
  // ISATAP (RFC 5214): the interface identifier is [02]00:5efe:a.b.c.d, under any prefix.
  if ((w2 & 0xfdffffff) >>> 0 === 0x00005efe) add(w3, 96);
  return found.length === 0 ? NONE : found;
}

/**
 * 64:ff9b:1::/48 may be cut at /48, /56, /64 or /96, and the place of the IPv4 address differs (RFC 6052 section 2.2,
 * which jumps over bits 64 to 71). All are read; a zero first octet only says that the prefix is another.
 */
function addLocalNat64({ w1, w2, w3 }: IpAddress, add: (value: number, offset: number) => void): void {
  add(w3, 96);
  if (w2 >>> 24 !== 0) return;
  const behind = ((w2 << 8) | (w3 >>> 24)) >>> 0;
  const candidates = [((w1 << 16) | (behind >>> 16)) >>> 0, ((w1 << 24) | (behind >>> 8)) >>> 0, behind];
  // Named only by a rule for the whole address: 96 and 32 bits.
  for (const value of candidates) if (value >>> 24 !== 0) add(value, 96);
}
