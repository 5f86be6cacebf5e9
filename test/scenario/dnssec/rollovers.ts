import type { RolledZone } from './rolled-zone.ts';

/** What is done to a zone, a step a round; a parent is signed in the same round, after its children. */
export type Step = () => Promise<void>;

/** RFC 6781 section 4.1.1.1: a new zone signing key is published, then signs, then the old one goes. */
export async function prePublish(zone: RolledZone): Promise<Step[]> {
  const ksk = await zone.newKey('KSK');
  const old = await zone.newKey('ZSK');
  zone.ds = [await zone.dsOf(ksk)];
  let next = '';
  return [
    () => zone.sign(),
    async () => {
      next = await zone.newKey('ZSK', zone.algorithm, '-P', 'now', '-A', 'none');
      await zone.sign();
    },
    async () => {
      await zone.setTimes(next, '-A', 'now');
      await zone.setTimes(old, '-I', 'now');
      await zone.sign();
    },
    () => withdraw(zone, old),
  ];
}

/** RFC 6781 section 4.1.1.2: both zone signing keys sign for a while. */
export async function doubleSignature(zone: RolledZone): Promise<Step[]> {
  const ksk = await zone.newKey('KSK');
  const old = await zone.newKey('ZSK');
  zone.ds = [await zone.dsOf(ksk)];
  return [
    () => zone.sign(),
    async () => {
      await zone.newKey('ZSK');
      await zone.sign();
    },
    () => withdraw(zone, old),
  ];
}

/** RFC 6781 section 4.1.2: both key signing keys are there while the parent changes its DS. */
export async function doubleKsk(zone: RolledZone): Promise<Step[]> {
  await zone.newKey('ZSK');
  const old = await zone.newKey('KSK');
  zone.ds = [await zone.dsOf(old)];
  let next = '';
  return [
    () => zone.sign(),
    async () => {
      next = await zone.newKey('KSK');
      await zone.sign();
    },
    async () => {
      zone.ds = [await zone.dsOf(next)];
    },
    () => withdraw(zone, old),
  ];
}

/** RFC 7583 section 3.3.2: both DS are there while the key is exchanged. */
export async function doubleDs(zone: RolledZone): Promise<Step[]> {
  await zone.newKey('ZSK');
  const old = await zone.newKey('KSK');
  zone.ds = [await zone.dsOf(old)];
  let next = '';
  return [
    () => zone.sign(),
    async () => {
      next = await zone.newKey('KSK', zone.algorithm, '-P', 'none', '-A', 'none');
      zone.ds = [await zone.dsOf(old), await zone.dsOf(next)];
    },
    async () => {
      await zone.setTimes(next, '-P', 'now', '-A', 'now');
      await withdraw(zone, old);
    },
    async () => {
      zone.ds = [await zone.dsOf(next)];
    },
  ];
}

/** RFC 6781 section 4.1.4, the conservative way: signatures, keys, DS, and back out in the other order. */
export async function newAlgorithm(zone: RolledZone): Promise<Step[]> {
  const pair = async (algorithm: string): Promise<string[]> => [
    await zone.newKey('KSK', algorithm),
    await zone.newKey('ZSK', algorithm),
  ];
  const old = await pair('RSASHA256');
  const next = await pair('ED25519');
  const both = [...old, ...next];
  zone.ds = [await zone.dsOf(old[0] ?? '')];
  return [
    () => zone.signWith(old, old),
    () => zone.signWith(both, old),
    () => zone.signWith(both, both),
    async () => {
      zone.ds = [await zone.dsOf(next[0] ?? '')];
    },
    () => zone.signWith(both, next),
    () => zone.signWith(next, next),
  ];
}

/** The parent is given the DS of a key that the zone does not have. */
export async function dsWithoutKey(zone: RolledZone): Promise<Step[]> {
  await zone.newKey('ZSK');
  const ksk = await zone.newKey('KSK');
  zone.ds = [await zone.dsOf(ksk)];
  return [
    () => zone.sign(),
    async () => {},
    async () => {
      zone.ds = [await zone.dsOf(await zone.newKey('KSK', zone.algorithm, '-P', 'none', '-A', 'none'))];
    },
  ];
}

/** Key and DS at one stroke: bogus for as long as somebody’s cache has the one and not the other. */
export async function atOnce(zone: RolledZone): Promise<Step[]> {
  const old = [await zone.newKey('ZSK'), await zone.newKey('KSK')];
  zone.ds = [await zone.dsOf(old[1] ?? '')];
  return [
    () => zone.sign(),
    async () => {},
    async () => {
      await zone.newKey('ZSK');
      zone.ds = [await zone.dsOf(await zone.newKey('KSK'))];
      await withdraw(zone, ...old);
    },
  ];
}

async function withdraw(zone: RolledZone, ...keys: readonly string[]): Promise<void> {
  for (const key of keys) await zone.setTimes(key, '-I', 'now', '-D', 'now');
  await zone.sign();
}
