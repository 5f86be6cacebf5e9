import assert from 'node:assert/strict';
import { createDecipheriv, createHash, createHmac, hkdfSync } from 'node:crypto';
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js';

/**
 * A second reader of volumes, written from guest/volume/format.md alone: no import from the engine, no cache, no care for
 * speed. It reads all objects, verifies everything, and gives the whole image.
 */
export interface NaiveVolume {
  readonly name: string;
  readonly sizeBytes: number;
  /** Blocks that are not holes. */
  readonly blocks: ReadonlyMap<number, Buffer>;
  readonly snapshots: ReadonlyMap<string, ReadonlyMap<number, Buffer>>;
}

export interface NaiveHead {
  readonly epoch: number;
  readonly seq: number;
  readonly commitHash: Buffer;
}

type Fetch = (name: string) => Buffer | undefined;

export function readNaively(fetch: Fetch, rootKey: Buffer, anchored: NaiveHead, window: number): NaiveVolume {
  return new Reader(fetch, rootKey).read(anchored, window);
}

const sha256 = (...parts: Buffer[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest();
const hmac = (key: Buffer, ...parts: Buffer[]): Buffer =>
  createHmac('sha256', key).update(Buffer.concat(parts)).digest();
const u32 = (value: number): Buffer => le(value, 4);
const u64 = (value: number): Buffer => le(value, 8);

function le(value: number, size: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  assert.ok(bytes.subarray(size).every((byte) => byte === 0));
  return bytes.subarray(0, size);
}

const part = (bytes: Buffer): Buffer => Buffer.concat([u32(bytes.length), bytes]);

function label(name: string, ...fields: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from('postern/volume/v1'), Buffer.from(name), ...fields].map(part));
}

const hkdf = (key: Buffer, info: Buffer): Buffer => Buffer.from(hkdfSync('sha256', key, '', info, 32));

function gcm(key: Buffer, nonce: Buffer, data: Buffer, sealed: Buffer): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, nonce);
  decipher.setAAD(data);
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]);
}

class Cursor {
  readonly bytes: Buffer;
  at = 0;
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
  take(size: number): Buffer {
    assert.ok(this.at + size <= this.bytes.length, 'ends too early');
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }
  uint(size: number): number {
    const bytes = this.take(size);
    let value = 0n;
    for (let index = size - 1; index >= 0; index -= 1) value = value * 256n + BigInt(bytes[index] ?? 0);
    assert.ok(value < 2n ** 53n);
    return Number(value);
  }
  many<T>(count: number, read: () => T): T[] {
    return Array.from({ length: count }, read);
  }
}

interface Entry {
  readonly kind: number;
  readonly generation: number;
  readonly id: Buffer;
  readonly siv: Buffer;
  readonly counts: number[];
  readonly live: number;
  readonly base: number;
  readonly epoch: number;
  readonly seq: number;
}

interface Numbered {
  readonly number: number;
  readonly entry: Entry;
}

interface Group {
  readonly holes: { first: number; count: number }[];
  readonly segments: (Numbered & { readonly spans: { lba: number; blocks: number }[] })[];
}

interface CheckpointPart {
  readonly covers: number;
  readonly indexRoot: number;
  readonly tableRoot: number;
  readonly tableSegments: Numbered[];
  readonly snapshots: { name: string; indexRoot: number; manifest: Numbered[] }[];
}

interface Commit {
  readonly epoch: number;
  readonly seq: number;
  readonly hash: Buffer;
  readonly sealedSize: number;
  readonly prevEpoch: number;
  readonly prevHash: Buffer;
  readonly sizeBytes: number;
  readonly checkpointSeq: number;
  readonly log: Buffer[];
  readonly groups: Group[];
  readonly checkpoint: CheckpointPart | undefined;
}

class Reader {
  readonly #fetch: Fetch;
  readonly #rootKey: Buffer;
  readonly #header: Buffer;
  readonly #volumeId: Buffer;
  readonly #generations = new Map<number, Buffer>();
  #base = Buffer.alloc(0);
  readonly #opened = new Map<string, Buffer[]>();
  #table = new Map<number, Entry>();

  constructor(fetch: Fetch, rootKey: Buffer) {
    this.#fetch = fetch;
    this.#rootKey = rootKey;
    this.#header = this.#need('hdr');
    assert.equal(this.#header.length, 512);
    assert.equal(this.#header.toString('latin1', 0, 4), 'PVH1');
    this.#volumeId = this.#header.subarray(16, 32);
  }

  read(anchored: NaiveHead, window: number): NaiveVolume {
    let head = this.#commit(anchored.epoch, anchored.seq);
    assert.ok(head, 'the anchored commit is missing');
    assert.deepEqual(head.hash, anchored.commitHash);
    for (let count = 0; count < window; count += 1) {
      const next = this.#tryCommit(head.epoch, head.seq + 1);
      if (next === undefined || !this.#follows(head, next)) break;
      head = next;
    }
    const tail = this.#tail(head);
    const carrier = [...tail, head].find(({ seq }) => seq === head.checkpointSeq);
    assert.ok(carrier?.checkpoint);
    const { checkpoint } = carrier;
    this.#loadTable(checkpoint);
    const places = this.#places(checkpoint.indexRoot);
    for (const commit of tail) for (const group of commit.groups) this.#apply(group, commit, places);
    const snapshots = new Map<string, ReadonlyMap<number, Buffer>>();
    for (const { name, indexRoot, manifest } of checkpoint.snapshots) {
      for (const { entry } of manifest) this.#segment(entry, () => undefined);
      snapshots.set(name, this.#image(this.#places(indexRoot)));
    }
    const nameLength = this.#header[64 + (this.#header[7] === 1 ? 32 : 0)] ?? 0;
    const nameAt = 65 + (this.#header[7] === 1 ? 32 : 0);
    return {
      name: this.#header.toString('utf8', nameAt, nameAt + nameLength),
      sizeBytes: head.sizeBytes,
      blocks: this.#image(places),
      snapshots,
    };
  }

  #need(name: string): Buffer {
    const bytes = this.#fetch(name);
    assert.ok(bytes, `no object ${name}`);
    return bytes;
  }

  #generationKey(generation: number): Buffer {
    const known = this.#generations.get(generation);
    if (known !== undefined) return known;
    const rootId = hmac(this.#rootKey, label('root-id', this.#volumeId)).toString('hex', 0, 8);
    const wrap = this.#need(`k/${generation.toString(16).padStart(8, '0')}-${rootId}`);
    assert.equal(wrap.length, 104);
    const data = label('wrap-data', sha256(this.#header), u32(generation));
    const key = hkdf(this.#rootKey, label('wrap'));
    const plain = Buffer.from(xchacha20poly1305(key, wrap.subarray(0, 24), data).decrypt(wrap.subarray(24)));
    this.#base = plain.subarray(32);
    this.#generations.set(generation, plain.subarray(0, 32));
    return plain.subarray(0, 32);
  }

  #key(name: string, generation: number): Buffer {
    return hkdf(this.#generationKey(generation), label(name, this.#volumeId, u32(generation)));
  }

  #tryCommit(epoch: number, seq: number): Commit | undefined {
    try {
      return this.#commit(epoch, seq);
    } catch {
      return undefined;
    }
  }

  #commit(epoch: number, seq: number): Commit | undefined {
    const hex = (value: number): string => value.toString(16).padStart(12, '0');
    const bytes = this.#fetch(`c/${hex(epoch)}-${hex(seq)}`);
    if (bytes === undefined) return undefined;
    assert.equal(bytes.toString('latin1', 0, 4), 'PVC1');
    assert.deepEqual([...bytes.subarray(4, 8)], [1, 0, 0, 0]);
    const generation = bytes.readUInt32LE(8);
    const size = bytes.readUInt32LE(12);
    assert.deepEqual(bytes.subarray(16, 32), Buffer.concat([u64(epoch), u64(seq)]));
    const siv = bytes.subarray(32, 64);
    const key = hkdf(this.#key('enc', generation), label('commit-key', siv, u64(epoch), u64(seq)));
    const data = label('commit-header', this.#volumeId, bytes.subarray(0, 64));
    const record = gcm(key, Buffer.alloc(12), data, bytes.subarray(64, 80 + size));
    const context = label('commit', this.#volumeId, u64(epoch), u64(seq), u32(generation));
    assert.deepEqual(hmac(this.#key('commit', generation), context, part(record)), siv);
    const hash = sha256(bytes.subarray(0, 80 + size));
    return { epoch, seq, hash, sealedSize: 80 + size, ...this.#record(new Cursor(record)) };
  }

  #record(at: Cursor): Omit<Commit, 'epoch' | 'seq' | 'hash' | 'sealedSize'> {
    const flags = at.uint(4);
    assert.equal(flags & 16, 0, 'a volume that is being deleted');
    const prevEpoch = at.uint(8);
    const prevHash = at.take(32);
    const sizeBytes = at.uint(8);
    at.uint(4);
    at.uint(8);
    at.uint(8);
    const checkpointSeq = at.uint(8);
    at.uint(8);
    if (flags & 1) at.take(32);
    const log = at.many(at.uint(1), () => at.take(32));
    const groups = at.many(at.uint(2), () => this.#group(at));
    const checkpoint = flags & 4 ? this.#checkpoint(at) : undefined;
    if (flags & 8) at.take(at.uint(2));
    assert.equal(at.at, at.bytes.length);
    return { prevEpoch, prevHash, sizeBytes, checkpointSeq, log, groups, checkpoint };
  }

  #group(at: Cursor): Group {
    const holes = at.many(at.uint(4), () => ({ first: at.uint(6), count: at.uint(6) }));
    const segments = at.many(at.uint(2), () => {
      const numbered = this.#numbered(at);
      const spans = at.many(at.uint(2), () => ({ lba: at.uint(6), blocks: at.uint(2) }));
      return { ...numbered, spans };
    });
    return { holes, segments };
  }

  #numbered(at: Cursor): Numbered {
    const number = at.uint(6);
    const entry = this.#entry(at.take(128));
    assert.ok(entry);
    return { number, entry };
  }

  #checkpoint(at: Cursor): CheckpointPart {
    const [covers, indexRoot, tableRoot] = [at.uint(8), at.uint(8), at.uint(8)];
    const tableSegments = at.many(at.uint(2), () => this.#numbered(at));
    at.many(at.uint(4), () => at.take(at.uint(1) === 1 ? 16 : 16));
    const snapshots = at.many(at.uint(2), () => {
      at.take(16);
      const name = at.take(at.uint(1)).toString('utf8');
      at.take(24);
      const root = at.uint(8);
      return { name, indexRoot: root, manifest: at.many(at.uint(1), () => this.#numbered(at)) };
    });
    return {
      covers: covers ?? 0,
      indexRoot: indexRoot ?? 0,
      tableRoot: tableRoot ?? 0,
      tableSegments,
      snapshots,
    };
  }

  #entry(bytes: Buffer): Entry | undefined {
    const at = new Cursor(bytes);
    const kind = at.uint(1);
    if (kind === 0) return undefined;
    assert.equal(at.uint(3), 0);
    const generation = at.uint(4);
    const [id, siv] = [at.take(16), at.take(32)];
    const counts = at.many(16, () => at.uint(2));
    const [live, base, epoch, seq] = [at.uint(4), at.uint(4), at.uint(6), at.uint(6)];
    return { kind, generation, id, siv, counts, live, base, epoch, seq };
  }

  /** RFC 6962: the perfect subtrees after one more leaf. */
  #follows(before: Commit, after: Commit): boolean {
    if (after.seq !== before.seq + 1 || after.prevEpoch !== before.epoch) return false;
    if (!after.prevHash.equals(before.hash)) return false;
    const nameKey = hkdf(this.#base, label('name', this.#volumeId));
    const blinded = hmac(nameKey, label('leaf', this.#volumeId));
    let hash = sha256(
      Buffer.from([0]),
      sha256(label('leaf-v1', blinded, u64(before.epoch), u64(before.seq), before.hash)),
    );
    const log = [...before.log];
    for (let size = before.seq; size % 2 === 1; size = (size - 1) / 2) {
      const left = log.pop();
      assert.ok(left);
      hash = sha256(Buffer.from([1]), left, hash);
    }
    return Buffer.concat([...log, hash]).equals(Buffer.concat(after.log));
  }

  #tail(head: Commit): Commit[] {
    const tail: Commit[] = [];
    let covers = head.checkpoint?.covers;
    for (let commit = head; covers === undefined || commit.seq > covers; ) {
      tail.unshift(commit);
      if (commit.seq === head.checkpointSeq) covers = commit.checkpoint?.covers;
      if (covers !== undefined && commit.seq - 1 <= covers) break;
      const before = this.#commit(commit.prevEpoch, commit.seq - 1);
      assert.ok(before && this.#follows(before, commit), `commit ${commit.seq} does not follow`);
      commit = before;
    }
    return tail;
  }

  /** Opens all frames of a segment, computes its siv again, and returns its frames. */
  #segment(entry: Entry, checkLba: (frame: number, lba: number, blocks: number) => void): Buffer[] {
    const known = this.#opened.get(entry.id.toString('hex'));
    if (known !== undefined) return known;
    const hex = (value: number): string => value.toString(16).padStart(12, '0');
    const id = entry.id.toString('hex');
    const name = entry.kind === 2 ? `c/${hex(entry.epoch)}-${hex(entry.seq)}` : `s/${id.slice(0, 2)}/${id}`;
    const bytes = this.#need(name);
    const sizes: number[] = [];
    for (let blocks = 16; blocks >= 1; blocks -= 1) {
      for (let count = 0; count < (entry.counts[blocks - 1] ?? 0); count += 1) sizes.push(blocks);
    }
    if (sizes.length === 0) return [];
    const key = hkdf(this.#key('enc', entry.generation), label('segment-key', entry.siv, entry.id));
    const open = (index: number, lba: number, blocks: number, sealed: Buffer): Buffer => {
      const fields = Buffer.concat([u32(index), u64(lba), u32(blocks)]);
      const data = label('frame', this.#volumeId, entry.id, u32(entry.generation), fields);
      return gcm(key, Buffer.concat([u32(index), Buffer.alloc(8)]), data, sealed);
    };
    const framesSize = sizes.reduce((sum, blocks) => sum + blocks * 4096 + 16, 0);
    const directoryAt = entry.base + framesSize;
    const sealed = bytes.subarray(directoryAt, directoryAt + sizes.length * 8 + 16);
    const directory = open(sizes.length, 2 ** 48 - 1, 0, sealed);
    const siv: Buffer[] = [label('seg', this.#volumeId, entry.id, u32(entry.generation))];
    const at = new Cursor(directory);
    let offset = entry.base;
    const frames = sizes.map((blocks, index) => {
      const lba = at.uint(6);
      assert.equal(at.uint(2), blocks);
      checkLba(index, lba, blocks);
      const frame = open(index, lba, blocks, bytes.subarray(offset, offset + blocks * 4096 + 16));
      offset += blocks * 4096 + 16;
      siv.push(part(frame));
      return frame;
    });
    siv.push(part(directory));
    assert.deepEqual(hmac(this.#key('mac', entry.generation), ...siv), entry.siv);
    this.#opened.set(id, frames);
    return frames;
  }

  #block(place: number): Buffer {
    const segment = Math.floor(place / 65536);
    const entry = this.#table.get(segment);
    assert.ok(entry, `no segment ${segment}`);
    const frame = this.#segment(entry, () => undefined)[Math.floor((place % 65536) / 16)];
    const from = (place % 16) * 4096;
    assert.ok(frame && from < frame.length);
    return frame.subarray(from, from + 4096);
  }

  #eachLeaf(root: number, level: number, page: number, visit: (page: number, bytes: Buffer) => void): void {
    if (root === 0) return;
    const bytes = this.#block(root);
    if (level === 0) {
      visit(page, bytes);
      return;
    }
    for (let index = 0; index < 512; index += 1) {
      const child = Number(bytes.readBigUInt64LE(index * 8));
      this.#eachLeaf(child, level - 1, page * 512 + index, visit);
    }
  }

  #loadTable(checkpoint: CheckpointPart): void {
    for (const { number, entry } of checkpoint.tableSegments) this.#table.set(number, entry);
    const table = new Map(this.#table);
    this.#eachLeaf(checkpoint.tableRoot, 3, 0, (page, bytes) => {
      for (let index = 0; index < 32; index += 1) {
        const entry = this.#entry(bytes.subarray(index * 128, (index + 1) * 128));
        if (entry !== undefined) table.set(page * 32 + index, entry);
      }
    });
    this.#table = table;
  }

  #places(root: number): Map<number, number> {
    const places = new Map<number, number>();
    this.#eachLeaf(root, 3, 0, (page, bytes) => {
      for (let index = 0; index < 512; index += 1) {
        const place = Number(bytes.readBigUInt64LE(index * 8));
        if (place !== 0) places.set(page * 512 + index, place);
      }
    });
    return places;
  }

  #apply(group: Group, commit: Commit, places: Map<number, number>): void {
    for (const { first, count } of group.holes) {
      for (const block of [...places.keys()])
        if (block >= first && block < first + count) places.delete(block);
    }
    for (const { number, entry, spans } of group.segments) {
      const based = entry.kind === 2 ? { ...entry, base: commit.sealedSize } : entry;
      this.#table.set(number, based);
      this.#segment(based, (frame, lba, blocks) => assert.deepEqual(spans[frame], { lba, blocks }));
      for (const [frame, { lba, blocks }] of spans.entries()) {
        for (let at = 0; at < blocks; at += 1) places.set(lba + at, number * 65536 + frame * 16 + at);
      }
    }
  }

  #image(places: ReadonlyMap<number, number>): Map<number, Buffer> {
    return new Map([...places].map(([block, place]) => [block, this.#block(place)]));
  }
}
