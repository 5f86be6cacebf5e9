import { isPosternError } from '../../shared/errors.ts';

/** A small, seeded generator (xorshift32): a failure is repeated from the seed that the test printed. */
export class SeededRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }

  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % limit;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError('nothing to pick from');
    return item;
  }
}

/** Seed of this run: from the environment to repeat one, else of the day's making. Print it with every failure. */
export function fuzzSeed(): number {
  const given = process.env['SEED'];
  return given === undefined ? (Date.now() & 0x7fffffff) | 1 : Number(given);
}

/** Rounds for one target: many under SLOW=1. */
export function fuzzRounds(quick: number): number {
  return process.env['SLOW'] === '1' ? quick * 50 : quick;
}

/** One of the corpus with some bits flipped, bytes changed, cut, doubled or spliced with another. */
export function mutate(random: SeededRandom, corpus: readonly Buffer[]): Buffer {
  let bytes: Buffer = Buffer.from(random.pick(corpus));
  for (let times = 1 + random.below(4); times > 0; times -= 1) bytes = mutateOnce(random, bytes, corpus);
  return bytes;
}

function mutateOnce(random: SeededRandom, bytes: Buffer, corpus: readonly Buffer[]): Buffer {
  const at = random.below(bytes.length + 1);
  switch (random.below(6)) {
    case 0:
      if (at < bytes.length) bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << random.below(8)), at);
      return bytes;
    case 1:
      if (at < bytes.length) bytes.writeUInt8(random.pick([0, 1, 0x7f, 0x80, 0xff]), at);
      return bytes;
    case 2:
      return bytes.subarray(0, at);
    case 3:
      return Buffer.concat([bytes.subarray(0, at), random.bytes(random.below(40)), bytes.subarray(at)]);
    case 4:
      return Buffer.concat([bytes.subarray(0, at), random.pick(corpus)]);
    default:
      return Buffer.concat([bytes, bytes.subarray(at)]);
  }
}

/**
 * Feeds a decoder `rounds` mutations: it may answer or throw a coded error; anything else is a bug of ours.
 * `check` looks at what was decoded.
 */
export function fuzzDecoder<T>(
  name: string,
  corpus: readonly Buffer[],
  rounds: number,
  decode: (bytes: Buffer, random: SeededRandom) => T,
  check?: (value: T, bytes: Buffer) => void,
): void {
  const seed = fuzzSeed();
  const random = new SeededRandom(seed);
  for (let round = 0; round < rounds; round += 1) {
    const bytes = mutate(random, corpus);
    try {
      const value = decode(Buffer.from(bytes), random);
      check?.(value, bytes);
    } catch (error) {
      if (isPosternError(error)) continue;
      const place = `${name}: SEED=${seed} round ${round} input ${bytes.toString('hex')}`;
      throw new Error(place, { cause: error });
    }
  }
}
