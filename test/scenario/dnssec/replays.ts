import type { TrustAnchors } from '../../../guest/dns/anchors.ts';
import { DomainName } from '../../../guest/dns/name.ts';
import { TYPE } from '../../../guest/dns/types.ts';
import type { SocketAddress } from '../../../guest/dns/upstream/address.ts';
import { encodeQuery } from '../../../guest/dns/upstream/query.ts';
import { DIRECT, resolverFor } from '../../../guest/dns/upstream/resolvers.ts';
import { Validator } from '../../../guest/dns/validator.ts';
import { TamperProxy } from './tamper-proxy.ts';

/** Answers by the octets of their question. */
export type Recorded = Map<string, Promise<Buffer>>;

export interface Replayed {
  readonly title: string;
  readonly state: string;
  readonly code: string | undefined;
}

/** Between the end of the first signatures and that of the later ones. */
const LATER_SECONDS = 7_200;

const REPLAYS: readonly {
  title: string;
  name: string;
  repeats: readonly (readonly [string, number])[];
  later?: true;
}[] = [
  { title: 'nothing', name: 'www.prepublish.test.', repeats: [], later: true },
  {
    title: 'data that a withdrawn key signed',
    name: 'www.prepublish.test.',
    repeats: [['www.prepublish.test.', TYPE.A]],
  },
  {
    title: 'data and keys of before the DS changed',
    name: 'www.ksk.test.',
    repeats: [
      ['www.ksk.test.', TYPE.A],
      ['ksk.test.', TYPE.DNSKEY],
    ],
  },
  {
    title: 'data whose signature has run out',
    name: 'www.prepublish.test.',
    repeats: [['www.prepublish.test.', TYPE.A]],
    later: true,
  },
];

/** What a parent may keep from before a zone is signed anew. */
export async function record(upstream: SocketAddress, anchors: TrustAnchors): Promise<Recorded> {
  const recorded: Recorded = new Map();
  for (const { name } of REPLAYS) await ask(upstream, anchors, name, recorded, 0);
  return recorded;
}

/** Repeats the old answers where the new ones are due. */
export async function replayAll(
  upstream: SocketAddress,
  anchors: TrustAnchors,
  recorded: Recorded,
): Promise<Replayed[]> {
  const outcomes: Replayed[] = [];
  for (const { title, name, repeats, later } of REPLAYS) {
    const known: Recorded = new Map();
    for (const [text, type] of repeats) {
      const question = encodeQuery(DomainName.parse(text), type).toString('latin1', 2);
      const old = recorded.get(question);
      if (old === undefined) throw new Error(`${text} was not recorded`);
      known.set(question, old);
    }
    const { state, code } = await ask(upstream, anchors, name, known, later ? LATER_SECONDS : 0);
    outcomes.push({ title, state, code });
  }
  return outcomes;
}

async function ask(
  upstream: SocketAddress,
  anchors: TrustAnchors,
  name: string,
  known: Recorded,
  aheadSeconds: number,
): ReturnType<Validator['resolve']> {
  const proxy = await TamperProxy.open(upstream, known);
  const validator = new Validator({
    resolvers: [resolverFor({ ...proxy.address, protocol: 'plain' }, DIRECT)],
    anchors,
    clock: () => Math.floor(Date.now() / 1000) + aheadSeconds,
  });
  try {
    return await validator.resolve(DomainName.parse(name), TYPE.A);
  } finally {
    proxy.close();
  }
}
