/** The RR types that the resolver itself has to know, by their registry numbers. */
export const TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  NAPTR: 35,
  DNAME: 39,
  OPT: 41,
  DS: 43,
  RRSIG: 46,
  NSEC: 47,
  DNSKEY: 48,
  NSEC3: 50,
  NSEC3PARAM: 51,
  TLSA: 52,
  SVCB: 64,
  HTTPS: 65,
  ANY: 255,
  CAA: 257,
} as const;

export const CLASS_IN = 1;

export const RCODE = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  YXDOMAIN: 6,
} as const;

const OTHER_TYPES: Record<string, number> = {
  MD: 3,
  MF: 4,
  MB: 7,
  MG: 8,
  MR: 9,
  NULL: 10,
  WKS: 11,
  HINFO: 13,
  MINFO: 14,
  RP: 17,
  AFSDB: 18,
  X25: 19,
  ISDN: 20,
  RT: 21,
  NSAP: 22,
  SIG: 24,
  KEY: 25,
  PX: 26,
  GPOS: 27,
  LOC: 29,
  NXT: 30,
  KX: 36,
  CERT: 37,
  A6: 38,
  APL: 42,
  SSHFP: 44,
  IPSECKEY: 45,
  DHCID: 49,
  SMIMEA: 53,
  HIP: 55,
  CDS: 59,
  CDNSKEY: 60,
  OPENPGPKEY: 61,
  CSYNC: 62,
  ZONEMD: 63,
  SPF: 99,
  NINFO: 56,
  RKEY: 57,
  TALINK: 58,
  NID: 104,
  L32: 105,
  L64: 106,
  LP: 107,
  EUI48: 108,
  EUI64: 109,
  URI: 256,
  AVC: 258,
  AMTRELAY: 260,
  RESINFO: 261,
  TA: 32768,
  DLV: 32769,
};

const NUMBERS = new Map<string, number>(Object.entries({ ...OTHER_TYPES, ...TYPE }));
const NAMES = new Map<number, string>([...NUMBERS].map(([name, number]) => [number, name]));
const RCODE_NAMES = new Map<number, string>(Object.entries(RCODE).map(([name, number]) => [number, name]));

/** `A`, `HTTPS`, or `TYPE1234` (RFC 3597 section 5). */
export function typeName(type: number): string {
  return NAMES.get(type) ?? `TYPE${type}`;
}

/** The number of a mnemonic or of `TYPEn`; undefined for anything else. */
export function typeNumber(text: string): number | undefined {
  const known = NUMBERS.get(text.toUpperCase());
  if (known !== undefined) return known;
  const digits = /^TYPE(\d{1,5})$/i.exec(text)?.[1];
  const number = digits === undefined ? Number.NaN : Number(digits);
  return number <= 0xffff ? number : undefined;
}

export function rcodeName(rcode: number): string {
  return RCODE_NAMES.get(rcode) ?? `RCODE${rcode}`;
}
