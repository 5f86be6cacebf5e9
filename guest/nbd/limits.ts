/** What this server bounds, and why at that number. The protocol's own numbers are in constants.ts. */

/** The protocol's recommended largest payload, and the largest that qemu and the kernel ever send. */
export const MAX_PAYLOAD_BYTES = 32 * 1024 * 1024;

/** The protocol's limit for an export name, a context query and a message for a person. */
export const MAX_STRING_BYTES = 4096;

/** Room for a longest name and fifteen longest queries; real clients send under 200 bytes. Answered TOO_BIG above. */
export const MAX_OPTION_BYTES = 64 * 1024;

/** Above this an option is not skipped but the stream closed: nobody sends it who speaks the protocol. */
export const MAX_SKIPPED_OPTION_BYTES = 16 * 1024 * 1024;

/** `nbdinfo --list` asks one option an export; a client that is still asking after this many is stuck in a loop. */
export const MAX_OPTIONS = 1024;

/** Context queries in one option, as many as 64 KiB could name for a purpose. */
export const MAX_QUERIES = 64;

/** Information types in one INFO or GO; the protocol defines four. */
export const MAX_INFO_REQUESTS = 64;

/** A client that has not chosen an export by then gives its connection's place free. */
export const HANDSHAKE_TIMEOUT_MS = 60_000;

/** Extents in one block status reply (64 KiB of it); the client asks on from where the reply ends. */
export const MAX_EXTENTS = 8192;

/** A read this long is looked at for holes first; below, the look costs more than the zeros. */
export const HOLE_SCAN_MIN_BYTES = 64 * 1024;

/** A hole shorter than this is sent as data: a chunk costs both sides more than copying it. */
export const HOLE_MIN_BYTES = 16 * 1024;

/** What one read of messages takes at most, and what a view of a small write's data keeps alive at most. */
export const RECEIVE_BYTES = 128 * 1024;

/** A read of less is not worth its system call. */
export const RECEIVE_MIN_BYTES = 32 * 1024;

/** The rest of a payload this long is read to where it belongs; below, the requests behind it come in the same read. */
export const DIRECT_READ_MIN_BYTES = 64 * 1024;

/** The peer of a connection that waits is looked for so often: a dead one keeps its place no longer. */
export const PAUSED_CHECK_MS = 2_000;

export interface NbdLimits {
  /**
   * Payload bytes of all connections of a server together, above each one's own: of a write from its announcement to its
   * reply, of a read until the kernel has taken its data.
   */
  readonly inflightBytes: number;
  /** Payload bytes that each connection may hold whatever the others hold. */
  readonly ownBytes: number;
  /** Requests of one connection that are not answered yet. */
  readonly inflightRequests: number;
  /** Connections of one server, over all exports. */
  readonly connections: number;
}

export const DEFAULT_LIMITS: NbdLimits = {
  // Eight of the largest that fio or nbdcopy send, more than two cores work on. A larger request is let in alone, in its turn; few clients ever send one.
  inflightBytes: 8 * 1024 * 1024,
  // A client that announces a large write and sends none of it holds shared bytes for as long as it likes. The kernel's
  // requests are 128 KiB at most unless told otherwise, nbdcopy's 256 KiB: with eight and four at once both go on.
  ownBytes: 1024 * 1024,
  // The kernel queues 128 on a connection, fio and qemu rarely more; twice that hides no latency any more.
  inflightRequests: 256,
  // The kernel's and nbdcopy's four, for several exports; each may hold ownBytes.
  connections: 32,
};
