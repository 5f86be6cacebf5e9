import { PosternError } from '../../shared/errors.ts';
import { rootId, unwrapKeys, type VolumeHeader, WRAP_BYTES, wrapKeys } from './header.ts';
import { deriveGenerationKeys, deriveVolumeKeys, type GenerationKeys, type VolumeKeys } from './keys.ts';
import { wrapName } from './names.ts';
import type { VolumeObjects } from './objects.ts';

/** The keys of a volume's generations, each unwrapped when it is first needed. */
export class KeyRing {
  readonly header: VolumeHeader;
  readonly #headerBytes: Buffer;
  readonly #rootKey: Buffer;
  readonly #objects: VolumeObjects;
  readonly #generations = new Map<number, GenerationKeys>();
  #volume: VolumeKeys | undefined;
  #baseKey: Buffer | undefined;

  constructor(header: VolumeHeader, headerBytes: Buffer, rootKey: Buffer, objects: VolumeObjects) {
    this.header = header;
    this.#headerBytes = headerBytes;
    this.#rootKey = rootKey;
    this.#objects = objects;
  }

  /** Known once any generation was opened. */
  get volume(): VolumeKeys {
    if (this.#volume === undefined) throw new RangeError('no generation was opened yet');
    return this.#volume;
  }

  get baseKey(): Buffer {
    if (this.#baseKey === undefined) throw new RangeError('no generation was opened yet');
    return this.#baseKey;
  }

  /** @throws ERR_VOLUME_KEY when this root key has no wrap of it, or does not open the one that is there. */
  async open(generation: number): Promise<GenerationKeys> {
    const known = this.#generations.get(generation);
    if (known !== undefined) return known;
    const name = wrapName(generation, rootId(this.#rootKey, this.header.volumeId));
    const wrap = await this.#objects.get(name, { offset: 0, length: WRAP_BYTES });
    if (wrap === undefined) {
      throw new PosternError(
        'ERR_VOLUME_KEY',
        `no ${name}: this is another volume's key, or generation ${generation} was erased`,
      );
    }
    const keys = unwrapKeys(this.#rootKey, this.#headerBytes, generation, wrap);
    return this.add(generation, keys.generationKey, keys.baseKey);
  }

  /** A wrap of new keys for a generation, for the same root key; `add` them once it is stored. */
  wrap(
    generation: number,
    generationKey: Buffer,
    nonce: Buffer,
  ): { readonly name: string; readonly bytes: Buffer } {
    const keys = { generationKey, baseKey: this.baseKey };
    const name = wrapName(generation, rootId(this.#rootKey, this.header.volumeId));
    return { name, bytes: wrapKeys(this.#rootKey, this.#headerBytes, generation, keys, nonce) };
  }

  add(generation: number, generationKey: Buffer, baseKey: Buffer): GenerationKeys {
    const { volumeId } = this.header;
    this.#baseKey = baseKey;
    this.#volume ??= deriveVolumeKeys(baseKey, volumeId);
    const derived = deriveGenerationKeys(generationKey, volumeId, generation);
    this.#generations.set(generation, derived);
    return derived;
  }

  /** A generation that was opened or added before. */
  known(generation: number): GenerationKeys {
    const keys = this.#generations.get(generation);
    if (keys === undefined) throw new RangeError(`generation ${generation} was not opened`);
    return keys;
  }
}
