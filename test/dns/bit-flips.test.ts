import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DomainName } from '../../guest/dns/name.ts';
import { TYPE } from '../../guest/dns/types.ts';
import { answersQuery } from '../../guest/dns/upstream/query.ts';
import { Validator } from '../../guest/dns/validator.ts';
import type { Verdict } from '../../guest/dns/verdict.ts';
import { addressRdata, nameRdata } from './encode.ts';
import { NOW } from './signer.ts';
import { TestWorld } from './world.ts';
import { TestZone } from './zone.ts';

/** What an application would see of a verdict; TTLs may only shrink. */
function content(verdict: Verdict): string {
  const records = verdict.answers.map(
    (rrset) => `${rrset.name} ${rrset.type} ${rrset.rdata.map((one) => one.toString('hex'))}`,
  );
  return `${verdict.rcode} ${records.join(' | ')}`;
}

/** Asks with one bit of one answer turned, for every bit of it. */
async function flipEveryBit(
  world: TestWorld,
  name: DomainName,
  type: number,
  spoiled: { name: string; type: number },
): Promise<void> {
  const honest = await world.ask(name.toString(), type);
  assert.equal(honest.state, 'secure');
  const known = new Map<string, Promise<Buffer>>();
  let bit = 0;
  let isOver = false;
  while (!isOver) {
    const upstream = {
      name: 'flipping resolver',
      exchange: async (query: Buffer): Promise<Buffer> => {
        const end = query.length - 15;
        const question = query.toString('latin1', 2);
        const answered = known.get(question) ?? world.exchange(query);
        known.set(question, answered);
        const answer = Buffer.from(await answered);
        query.copy(answer, 0, 0, 2);
        const isSpoiled =
          query.readUInt16BE(end) === spoiled.type &&
          DomainName.parse(spoiled.name).key === query.toString('latin1', 12, end);
        if (!isSpoiled) return answer;
        if (bit >= answer.length * 8) isOver = true;
        else answer.writeUInt8(answer.readUInt8(bit >> 3) ^ (0x80 >> (bit & 7)), bit >> 3);
        // A real way drops what is no answer to its question, and in the end reports that none came.
        if (!answersQuery(answer, query)) throw Object.assign(new Error('dropped'), { dropped: true });
        return answer;
      },
    };
    const resolvers = [{ name: upstream.name, ways: [upstream] }];
    const validator = new Validator({ resolvers, anchors: world.anchors(), clock: () => NOW });
    const verdict = await validator.resolve(name, type).catch((error: { dropped?: boolean }) => {
      if (error.dropped !== true) throw error;
    });
    if (verdict?.state === 'secure') {
      assert.equal(content(verdict), content(honest), `bit ${bit}`);
      assert.ok(verdict.ttlSeconds <= honest.ttlSeconds, `bit ${bit} lengthened the TTL`);
    }
    // What is proven signed cannot become proven unsigned.
    assert.notEqual(verdict?.state, 'insecure', `bit ${bit}`);
    bit += 1;
  }
}

describe('one bit turned in every position of a signed answer', () => {
  const zone = new TestZone('example.', { algorithm: 15 });
  zone.add('www.example.', TYPE.A, addressRdata('192.0.2.1'), addressRdata('192.0.2.2'));
  zone.add('alias.example.', TYPE.CNAME, nameRdata('www.example.'));
  zone.add('*.wild.example.', TYPE.A, addressRdata('192.0.2.3'));
  const hashed = new TestZone('hashed.', { algorithm: 15, denial: 'nsec3' });
  const world = new TestWorld(new TestZone('.', { algorithm: 15 }), zone, hashed);
  const questions = [
    ['www.example.', TYPE.A],
    ['alias.example.', TYPE.A],
    ['a.wild.example.', TYPE.A],
    ['none.example.', TYPE.A],
    ['none.hashed.', TYPE.A],
  ] as const;
  for (const [name, type] of questions) {
    test(`${name} itself`, () => flipEveryBit(world, DomainName.parse(name), type, { name, type }));
  }
  for (const type of [TYPE.DS, TYPE.DNSKEY]) {
    test(`the ${type === TYPE.DS ? 'DS' : 'DNSKEY'} on the way`, () =>
      flipEveryBit(world, DomainName.parse('www.example.'), TYPE.A, { name: 'example.', type }));
  }
});
