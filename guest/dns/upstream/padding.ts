const OPTION_PADDING = 12;
const OPTION_HEADER_BYTES = 4;
/** RFC 8467 section 4.1: questions all look alike in multiples of this. */
const PADDING_BLOCK_BYTES = 128;

/** Pads a question (whose last record is an OPT without options) for an encrypted way (RFC 7830). */
export function padQuery(query: Buffer): Buffer {
  const bare = query.length + OPTION_HEADER_BYTES;
  const padded = Buffer.alloc(Math.ceil(bare / PADDING_BLOCK_BYTES) * PADDING_BLOCK_BYTES);
  query.copy(padded);
  padded.writeUInt16BE(padded.length - query.length, query.length - 2);
  padded.writeUInt16BE(OPTION_PADDING, query.length);
  padded.writeUInt16BE(padded.length - bare, query.length + 2);
  return padded;
}
