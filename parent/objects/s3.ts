import type { Readable } from 'node:stream';
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  type S3ClientConfig,
} from '@aws-sdk/client-s3';
import { abandonBody, allocateBody } from '../../shared/objects/bodies.ts';
import { checkedStore } from '../../shared/objects/checked.ts';
import { SYSTEM_CLOCK } from '../../shared/objects/clock.ts';
import { withDeadline } from '../../shared/objects/deadline.ts';
import { corrupt, throwIfAborted, unavailable } from '../../shared/objects/failure.ts';
import { isKey } from '../../shared/objects/key.ts';
import {
  type ByteRange,
  LIST_MAX_KEYS,
  type ListOptions,
  OBJECT_MAX_BYTES,
  type ObjectPage,
  type ObjectStore,
  type StoreOptions,
} from '../../shared/objects/store.ts';
import { isNoSuchKey, isNotFound, isPreconditionFailed, readFailure, writeFailure } from './s3-errors.ts';
import { whetherSent } from './sent-request.ts';

/** Connections to the store, for all guests together; each guest's own limit is far below. */
export const S3_MAX_SOCKETS = 256;
/** A store that does not accept a connection in this time is not there. */
export const S3_CONNECT_TIMEOUT_MS = 3_000;
/** One request with its body; 16 MiB take this long at 1.1 MiB/s. */
export const S3_REQUEST_TIMEOUT_MS = 15_000;
/** An idle connection is probed before NATs and load balancers forget it. */
const KEEP_ALIVE_PROBE_MS = 30_000;

export interface S3Options {
  readonly bucket: string;
  readonly region: string;
  /** Undefined: the region's own. */
  readonly endpoint?: string;
  /** `https://host/bucket/key` in place of `https://bucket.host/key`: what most servers but AWS want. */
  readonly forcePathStyle?: boolean;
  /** `aws`: the SDK's own chain on this host (environment, shared files, container, instance role). */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | 'aws';
  readonly maxSockets?: number;
  readonly requestTimeoutMs?: number;
}

/** A bucket, and what holds connections to it. */
export interface S3Store {
  readonly store: ObjectStore;
  close(): void;
}

/**
 * Objects in an S3 bucket that honours `If-None-Match: *`; run the probe before it is used. It never retries by itself:
 * the guest does, which alone knows its deadline. Credentials never leave this process.
 */
export function createS3Store(options: S3Options): S3Store {
  const client = new S3Client(clientConfig(options));
  const requestTimeoutMs = options.requestTimeoutMs ?? S3_REQUEST_TIMEOUT_MS;
  const store = checkedStore(new S3Objects(client, options.bucket, requestTimeoutMs));
  return { store, close: () => client.destroy() };
}

function clientConfig(options: S3Options): S3ClientConfig {
  const maxSockets = options.maxSockets ?? S3_MAX_SOCKETS;
  const agent = { keepAlive: true, keepAliveMsecs: KEEP_ALIVE_PROBE_MS, maxSockets, noDelay: true };
  return {
    region: options.region,
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    forcePathStyle: options.forcePathStyle ?? false,
    ...(options.credentials === 'aws' ? {} : { credentials: options.credentials }),
    maxAttempts: 1,
    // What is read is sealed and checked in the guest; and several servers refuse checksums in trailers.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    followRegionRedirects: false,
    requestHandler: { connectionTimeout: S3_CONNECT_TIMEOUT_MS, httpAgent: agent, httpsAgent: agent },
  };
}

class S3Objects implements ObjectStore {
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #requestTimeoutMs: number;

  constructor(client: S3Client, bucket: string, requestTimeoutMs: number) {
    this.#client = client;
    this.#bucket = bucket;
    this.#requestTimeoutMs = requestTimeoutMs;
  }

  async putIfAbsent(key: string, bytes: Buffer, options?: StoreOptions): Promise<'created' | 'exists'> {
    const command = new PutObjectCommand({
      Bucket: this.#bucket,
      Key: key,
      Body: bytes,
      ContentLength: bytes.length,
      ContentType: 'application/octet-stream',
      IfNoneMatch: '*',
    });
    try {
      const { isSent } = await whetherSent(() =>
        this.#within(options, (abortSignal) => this.#client.send(command, { abortSignal })),
      );
      if (!isSent) abandonBody(bytes);
      return 'created';
    } catch (error) {
      if (isPreconditionFailed(error)) return 'exists';
      throw writeFailure(key, error);
    }
  }

  async get(
    key: string,
    options?: StoreOptions & { readonly range?: ByteRange },
  ): Promise<Buffer | undefined> {
    try {
      return await this.#within(options, (abortSignal) => this.#read(key, options?.range, abortSignal));
    } catch (error) {
      // A 404 without S3's own words may be a proxy's, or mean the bucket: it does not say that there is no object.
      if (isNoSuchKey(error)) return undefined;
      throw readFailure(key, error);
    }
  }

  async head(key: string, options?: StoreOptions): Promise<{ readonly sizeBytes: number } | undefined> {
    const command = new HeadObjectCommand({ Bucket: this.#bucket, Key: key });
    try {
      const head = await this.#within(options, (abortSignal) => this.#client.send(command, { abortSignal }));
      return { sizeBytes: sizeOf(key, head.ContentLength) };
    } catch (error) {
      if (!isNotFound(error)) throw readFailure(key, error);
    }
    // The answer to a HEAD has no body that would tell a missing object from a missing bucket; that to a GET has.
    const bytes = await this.get(key, options);
    return bytes && { sizeBytes: bytes.length };
  }

  async list(prefix: string, options?: StoreOptions & ListOptions): Promise<ObjectPage> {
    const limit = options?.limit ?? LIST_MAX_KEYS;
    let after = options?.after ?? '';
    for (;;) {
      const command = new ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: prefix,
        MaxKeys: limit,
        ...(after === '' ? {} : { StartAfter: after }),
      });
      const page = await this.#within(options, (abortSignal) =>
        this.#client.send(command, { abortSignal }),
      ).catch((error: unknown) => {
        throw readFailure(prefix, error);
      });
      const entries = page.Contents ?? [];
      const truncated = page.IsTruncated === true;
      const objects = entries.flatMap(({ Key, Size }) => ownObject(Key, Size));
      if (objects.length > 0 || !truncated) return { objects, truncated };
      // A whole page of objects that somebody else put there: none of ours, and not the end.
      const last = entries.at(-1)?.Key;
      if (last === undefined || last <= after) throw corrupt(`${prefix}: a listing that does not go on`);
      after = last;
    }
  }

  async delete(key: string, options?: StoreOptions): Promise<void> {
    const command = new DeleteObjectCommand({ Bucket: this.#bucket, Key: key });
    try {
      await this.#within(options, (abortSignal) => this.#client.send(command, { abortSignal }));
    } catch (error) {
      // Some servers say so of what is gone already.
      if (!isNoSuchKey(error)) throw readFailure(key, error);
    }
  }

  async #read(key: string, range: ByteRange | undefined, abortSignal: AbortSignal): Promise<Buffer> {
    const command = new GetObjectCommand({
      Bucket: this.#bucket,
      Key: key,
      ...(range === undefined ? {} : { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` }),
    });
    const answer = await this.#client.send(command, { abortSignal });
    const sizeBytes = sizeOf(key, answer.ContentLength);
    const body = answer.Body as Readable | undefined;
    if (range !== undefined && (sizeBytes !== range.length || answer.ContentRange === undefined)) {
      throw corrupt(`${key}: ${sizeBytes} bytes for a range of ${range.length}`);
    }
    return readBody(key, body, sizeBytes);
  }

  /** Runs with a signal that aborts when the caller gives up or the request takes too long, body included. */
  async #within<T>(options: StoreOptions | undefined, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    throwIfAborted(options?.signal);
    const late = (): unknown =>
      new DOMException(`no answer within ${this.#requestTimeoutMs} ms`, 'TimeoutError');
    return withDeadline(SYSTEM_CLOCK, this.#requestTimeoutMs, options?.signal, late, run);
  }
}

function sizeOf(key: string, contentLength: number | undefined): number {
  if (contentLength === undefined || contentLength < 0 || contentLength > OBJECT_MAX_BYTES) {
    throw corrupt(`${key}: an answer of ${contentLength ?? 'unknown'} bytes`);
  }
  return contentLength;
}

/** Exactly so many bytes; an answer that ends early is for the HTTP client to notice, which does. */
function readBody(key: string, body: Readable | undefined, sizeBytes: number): Promise<Buffer> {
  const bytes = allocateBody(sizeBytes);
  let filledBytes = 0;
  // Not `for await`: it costs some promises for every 64 KiB.
  return new Promise((resolve, reject) => {
    const end = (): void => {
      if (filledBytes === sizeBytes) resolve(bytes);
      else reject(corrupt(`${key}: ${filledBytes} of ${sizeBytes} bytes`));
    };
    if (body === undefined) return end();
    body.on('data', (piece: Buffer) => {
      if (filledBytes + piece.length > sizeBytes) {
        body.destroy(corrupt(`${key}: more than ${sizeBytes} bytes`));
        return;
      }
      piece.copy(bytes, filledBytes);
      filledBytes += piece.length;
    });
    body.once('end', end);
    body.once('error', reject);
    // Closed before its end, and nobody said why.
    body.once('close', () => reject(unavailable(`${key}: the answer was cut off`)));
  });
}

/** None for what no writer of ours can have put there. */
function ownObject(key: string | undefined, sizeBytes: number | undefined): ObjectPage['objects'] {
  const own = key !== undefined && isKey(key) && sizeBytes !== undefined && sizeBytes <= OBJECT_MAX_BYTES;
  return own ? [{ key, sizeBytes }] : [];
}
