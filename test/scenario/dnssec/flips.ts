import type { TrustAnchors } from '../../../guest/dns/anchors.ts';
import { DomainName } from '../../../guest/dns/name.ts';
import { TYPE, typeName } from '../../../guest/dns/types.ts';
import type { SocketAddress } from '../../../guest/dns/upstream/address.ts';
import { answersQuery } from '../../../guest/dns/upstream/query.ts';
import { DIRECT, resolverFor } from '../../../guest/dns/upstream/resolvers.ts';
import { Validator } from '../../../guest/dns/validator.ts';
import type { Verdict } from '../../../guest/dns/verdict.ts';
import { type Asked, type Sent, TamperProxy } from './tamper-proxy.ts';

/** Data, a name error, a wildcard, an alias, by NSEC and by NSEC3; then other algorithms and links. */
const QUICK: readonly (readonly [string, number])[] = [
  ['www.a13.test.', TYPE.A],
  ['none.a15.test.', TYPE.A],
  ['none.a13.test.', TYPE.A],
  ['x.wild.a15.test.', TYPE.A],
  ['here.a13.test.', TYPE.A],
];
const SLOW: readonly (readonly [string, number])[] = [
  ['www.a08.test.', TYPE.A],
  ['www.a10.test.', TYPE.AAAA],
  ['www.a14.test.', TYPE.A],
  ['www.a16.test.', TYPE.A],
  ['none.a10.test.', TYPE.A],
  ['x.wild.a13.test.', TYPE.A],
  ['www.a15.test.', TYPE.MX],
  ['there.a15.test.', TYPE.A],
  ['www.moved.a13.test.', TYPE.A],
  ['a13.test.', TYPE.DS],
  ['a15.test.', TYPE.DNSKEY],
];
/** The TTL that all signatures of the hierarchy cover. */
const TTL_SIGNED_SECONDS = 300;
/** Equal questions at one time are one walk, so each lane has a validator and a parent of its own. */
const LANES = 4;

/** Turns every bit of the answers, over UDP and over TCP alike; gives how many. */
export async function flipAll(
  upstream: SocketAddress,
  anchors: TrustAnchors,
  isSlow: boolean,
  report: (problem: string) => void,
): Promise<number> {
  const known = new Map<string, Promise<Buffer>>();
  const lanes = await Promise.all(Array.from({ length: LANES }, () => Lane.open(upstream, anchors, known)));
  let flips = 0;
  for (const [text, type] of isSlow ? [...QUICK, ...SLOW] : QUICK) {
    const name = DomainName.parse(text);
    const counts = await Promise.all(
      lanes.map((lane, index) =>
        lane.flip(name, type, index, (problem) => report(`${name} ${typeName(type)} ${problem}`)),
      ),
    );
    flips += counts.reduce((sum, count) => sum + count, 0);
  }
  for (const lane of lanes) lane.close();
  return flips;
}

class Lane {
  readonly #proxy: TamperProxy;
  readonly #validator: Validator;

  private constructor(proxy: TamperProxy, anchors: TrustAnchors) {
    this.#proxy = proxy;
    const resolvers = [resolverFor({ ...proxy.address, protocol: 'plain' }, DIRECT)];
    // The chain is known and the answer never is: without room for answers, each question asks for its own.
    const clock = (): number => Math.floor(Date.now() / 1000);
    this.#validator = new Validator({ resolvers, anchors, clock, cacheBytes: 0 });
  }

  static async open(
    upstream: SocketAddress,
    anchors: TrustAnchors,
    known: Map<string, Promise<Buffer>>,
  ): Promise<Lane> {
    return new Lane(await TamperProxy.open(upstream, known), anchors);
  }

  close(): void {
    this.#proxy.close();
  }

  /** Every `LANES`th bit, from `first`. */
  async flip(
    name: DomainName,
    type: number,
    first: number,
    report: (problem: string) => void,
  ): Promise<number> {
    let [length, bit] = [0, first];
    this.#proxy.tamper = (asked) => {
      length = asked.answer.length;
      return [{ octets: asked.answer }];
    };
    const honest = await this.#validator.resolve(name, type);
    if (honest.state !== 'secure') report(`is ${honest.state}: ${honest.reason}`);
    this.#proxy.tamper = (asked) =>
      asked.name.equals(name) && asked.type === type ? flipped(asked, bit) : [{ octets: asked.answer }];
    let count = 0;
    for (; bit < length * 8; bit += LANES) {
      const problem = compare(await this.#validator.resolve(name, type), honest);
      if (problem !== undefined) report(`bit ${bit}: ${problem}`);
      count += 1;
    }
    return count;
  }
}

/** What a flip makes no answer of is dropped; then the right one comes too, or each would cost a timeout. */
function flipped({ answer, query }: Asked, bit: number): Sent[] {
  const octets = Buffer.from(answer);
  // A question of a connection that was given up may come when all bits are done.
  if (bit >= octets.length * 8) return [{ octets }];
  octets.writeUInt8(octets.readUInt8(bit >> 3) ^ (0x80 >> (bit & 7)), bit >> 3);
  return answersQuery(octets, query) ? [{ octets }] : [{ octets }, { octets: answer }];
}

/** Bogus, or secure with what was there before and for no longer than was signed (a cache upstream counts down). */
function compare(verdict: Verdict, honest: Verdict): string | undefined {
  if (verdict.state === 'bogus') return verdict.answers.length === 0 ? undefined : 'bogus data was given out';
  if (verdict.state !== 'secure') return `${verdict.state}: ${verdict.reason}`;
  if (contentOf(verdict) !== contentOf(honest)) return `secure, and says ${contentOf(verdict)}`;
  return verdict.ttlSeconds <= TTL_SIGNED_SECONDS ? undefined : `kept for ${verdict.ttlSeconds} s`;
}

function contentOf({ rcode, answers }: Verdict): string {
  return `${rcode} ${answers.map(({ name, type, rdata }) => `${name} ${type} ${rdata.map((one) => one.toString('hex'))}`)}`;
}
