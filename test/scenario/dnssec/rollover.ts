import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseAnchors, TrustAnchors } from '../../../guest/dns/anchors.ts';
import { readMessage } from '../../../guest/dns/message.ts';
import { DomainName } from '../../../guest/dns/name.ts';
import { TYPE } from '../../../guest/dns/types.ts';
import { encodeQuery } from '../../../guest/dns/upstream/query.ts';
import { DIRECT, resolverFor } from '../../../guest/dns/upstream/resolvers.ts';
import { udpUpstream } from '../../../guest/dns/upstream/udp.ts';
import { Validator } from '../../../guest/dns/validator.ts';
import { Questions } from './questions.ts';
import { record, replayAll } from './replays.ts';
import { RolledZone, TTL_SECONDS } from './rolled-zone.ts';
import {
  atOnce,
  doubleDs,
  doubleKsk,
  doubleSignature,
  dsWithoutKey,
  newAlgorithm,
  prePublish,
  type Step,
} from './rollovers.ts';
import { RECURSOR, SECOND_RECURSOR, startAuthorities, startResolvers } from './servers.ts';
import { SERVER_ADDRESSES } from './zones.ts';

/**
 * Run inside a network namespace of its own. Zones on three servers change their keys, each in another way, a step a
 * round, while questions go on through two resolvers. Prints each verdict that is not secure, and last a summary.
 */
const DATA = ['www A 192.0.2.1', '*.wild A 192.0.2.2'];
/** After a step, until no cache knows the time before: the upstream’s and ours, with room for a slow machine. */
const SETTLE_MS = (2 * TTL_SECONDS + 2) * 1_000;
const START_TIMEOUT_MS = 30_000;

const folder = mkdtempSync(join(tmpdir(), 'postern-rollover-'));
const root = new RolledZone(folder, '.', 'named', []);
const top = new RolledZone(folder, 'test.', 'knot', []);
const wrong = new RolledZone(folder, 'wrong.test.', 'nsd', DATA);
const hasty = new RolledZone(folder, 'hasty.test.', 'nsd', DATA);
const plans: readonly (readonly [RolledZone, (zone: RolledZone) => Promise<Step[]>])[] = [
  [new RolledZone(folder, 'prepublish.test.', 'named', DATA), prePublish],
  [new RolledZone(folder, 'doublesig.test.', 'knot', DATA), doubleSignature],
  [new RolledZone(folder, 'ksk.test.', 'nsd', DATA), doubleKsk],
  [new RolledZone(folder, 'doubleds.test.', 'knot', DATA), doubleDs],
  [new RolledZone(folder, 'algorithm.test.', 'named', DATA), newAlgorithm],
  [wrong, dsWithoutKey],
  [hasty, atOnce],
];
const leaves = plans.map(([zone]) => zone);
const all = [root, top, ...leaves];
const children: ChildProcess[] = [];
try {
  await main();
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = 0;

async function main(): Promise<void> {
  const steps = await Promise.all(plans.map(([zone, rollover]) => rollover(zone)));
  // The zone above them rolls its own key signing key under the root meanwhile.
  const topSteps = await doubleKsk(top);
  await root.newKey('ZSK');
  const anchorText = await root.dsOf(await root.newKey('KSK'));
  await runStep(steps, topSteps, 0);
  const anchors = new TrustAnchors(parseAnchors(anchorText, 'root.anchor'));
  writeFileSync(join(folder, 'root.anchor'), `${anchorText}\n`);
  const plansOf = all.map((zone) => ({ name: zone.name, server: zone.server, algorithm: zone.algorithm }));
  const authorities = startAuthorities(folder, plansOf);
  children.push(...authorities, ...startResolvers(folder));
  await served();
  const clock = (): number => Math.floor(Date.now() / 1000);
  const validators = (): Validator[] =>
    [RECURSOR, SECOND_RECURSOR].map((address) => {
      const resolvers = [resolverFor({ ...address, protocol: 'plain' }, DIRECT)];
      return new Validator({ resolvers, anchors, clock });
    });
  const recorded = await record(RECURSOR, anchors);
  const questions = new Questions(validators(), leaves);
  const asking = questions.goOn();
  const stepCount = Math.max(topSteps.length, ...steps.map((one) => one.length));
  for (let step = 1; step < stepCount; step += 1) {
    questions.step = step;
    if (step === 2) questions.exempt = [wrong, hasty];
    await runStep(steps, topSteps, step);
    for (const child of authorities) child.kill('SIGHUP');
    await served();
    await sleep(SETTLE_MS);
    if (step === 2) questions.exempt = [wrong];
    await new Questions(validators(), leaves, questions).once(step);
  }
  questions.isOver = true;
  await asking;
  const verdicts = await Promise.all(
    validators().map((one) => one.resolve(DomainName.parse('www.wrong.test.'), TYPE.A)),
  );
  const reasons = verdicts.map(({ state, code, reason }) => ({ state, code, reason }));
  const summary = {
    done: stepCount - 1,
    asked: questions.asked,
    wrong: reasons,
    replayed: await replayAll(RECURSOR, anchors, recorded),
  };
  process.stdout.write(`${JSON.stringify(summary)}\n`);
}

/** Children sign before their parents, whose DS may be new. */
async function runStep(
  steps: readonly (readonly Step[])[],
  topSteps: readonly Step[],
  step: number,
): Promise<void> {
  for (const one of steps) await one[step]?.();
  top.records = leaves.flatMap((zone) => zone.delegation);
  await (topSteps[step] ?? (() => top.sign()))();
  // A step that changes only the DS of a zone leaves the signing of it to us.
  await top.sign();
  root.records = top.delegation;
  await root.sign();
}

/** Until every authority serves what was signed last. */
async function served(): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (const zone of all) {
    while ((await serialOf(zone)) !== zone.serial) {
      if (performance.now() > deadline) throw new Error(`${zone.name} ${zone.serial} is not served`);
      await sleep(50);
    }
  }
}

async function serialOf(zone: RolledZone): Promise<number> {
  const query = encodeQuery(DomainName.parse(zone.name), TYPE.SOA);
  const address = { address: SERVER_ADDRESSES[zone.server], port: 53 };
  const answer = await udpUpstream(address)
    .exchange(query, { signal: AbortSignal.timeout(1_000) })
    .then(readMessage, () => undefined);
  const rdata = answer?.answer.find(({ type }) => type === TYPE.SOA)?.rdata;
  return rdata?.readUInt32BE(rdata.length - 20) ?? 0;
}
