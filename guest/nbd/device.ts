/**
 * What an NBD export serves. Offsets and lengths are in bytes, already checked against `sizeBytes`, and need not be
 * aligned to anything. Failures are PosternErrors of ERR_VOLUME_*, which the server turns into NBD errors.
 */
export interface BlockDevice {
  readonly sizeBytes: number;
  /** What a client does best to align to; any alignment is served. */
  readonly preferredBlockBytes: number;
  readonly readOnly: boolean;
  /** Fills a buffer that the caller then owns. */
  read(offset: number, length: number): Promise<Buffer>;
  /**
   * Resolves when the data is readable (and durable, where `fua`). Takes `data` over: the caller does not reuse it. A
   * small one may be a view of up to 128 KiB received with it, all of which it keeps alive: copy what is kept for long.
   */
  write(offset: number, data: Buffer, options: { readonly fua: boolean }): Promise<void>;
  /** Everything written and resolved before this call is durable and fresh when it resolves. */
  flush(): Promise<void>;
  /** Reads as zeros afterwards, and its space may be freed. */
  trim(offset: number, length: number, options: { readonly fua: boolean }): Promise<void>;
  /** `noHole`: keep the space allocated. */
  writeZeroes(
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly noHole: boolean },
  ): Promise<void>;
  /** Consecutive extents from `offset`, at least one, covering at most `length`. */
  blockStatus(offset: number, length: number): Promise<readonly BlockExtent[]>;
  /** A hint to read ahead; resolves at once. */
  cache(offset: number, length: number): Promise<void>;
}

export interface BlockExtent {
  readonly length: number;
  readonly hole: boolean;
  readonly zero: boolean;
}
