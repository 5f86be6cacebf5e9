/**
 * The closed set of things that Postern expects to go wrong. A coded error is handled or shown to a person;
 * an uncoded one is a bug of ours and is not caught. `docs/errors.md` lists the same codes (a test compares).
 */
export const ERRORS = {
  ERR_CONFIG_INVALID:
    'a configuration, policy or command line has mistakes; every one is listed with its path',
  ERR_CONFIG_UNREADABLE: 'a configuration file cannot be read or is larger than its limit',
  ERR_ADDRESS_INVALID: 'a transport address is not vsock:CID:PORT, hybrid:PATH:PORT or unix:PATH',
  ERR_TRANSPORT_REFUSED: 'nobody listens at the transport address, or the peer refused the stream',
  ERR_TRANSPORT_UNREACHABLE: 'the transport address has no peer (no such CID, no such socket)',
  ERR_TRANSPORT_TIMEOUT: 'the peer did not accept the stream within its deadline',
  ERR_TRANSPORT_IN_USE: 'another process listens at the transport address',
  ERR_TRANSPORT_DENIED: 'the operating system does not permit the transport address to this user',
  ERR_TRANSPORT_UNSUPPORTED: 'this kernel or Node cannot carry the transport',
  ERR_TRANSPORT_ABORTED: 'the caller gave up before the stream was there',
  ERR_TRANSPORT_CLOSED: 'the stream ended before its peer had said what was due',
  ERR_TRANSPORT_FAILED: 'the operating system reported another error on the stream',
  ERR_WIRE_MALFORMED: 'a peer sent bytes that are not of the protocol',
  ERR_WIRE_VERSION: 'a peer speaks no version of the protocol that this side speaks',
  ERR_WIRE_TOO_LARGE: 'a peer announced a length over the limit',
  ERR_WIRE_TIMEOUT: 'a peer did not finish a message within its deadline',
  ERR_SESSION_UNREGISTERED: 'a stream came from a guest that has no live session',
  ERR_SESSION_PROOF: 'a stream does not prove the session key of its guest',
  ERR_SESSION_TAKEN: 'a session of this guest is live, or belongs to the holder of another key',
  ERR_SESSION_LOST: 'the control stream ended or fell silent; its flows are ended too',
  ERR_SESSION_UNKNOWN_GUEST: 'the peer is no guest of this configuration',
  ERR_SESSION_STATE: 'the remembered key of a guest cannot be read or written, so the guest is refused',
  ERR_SESSION_KEY: 'the session key’s file or folder is open to others, or the file is no key',
  ERR_RESOLVE_NOT_FOUND: 'the name, or an address of it, does not exist',
  ERR_RESOLVE_FAILED: 'no resolver gave an answer for the name',
  ERR_WORKLOAD_ACCOUNT: 'the user or group that the workload runs as does not exist, or cannot be taken on',
  ERR_FLOW_DENIED: 'the policy or the operator’s guard refuses the destination',
  ERR_FLOW_REFUSED: 'the destination refused the connection',
  ERR_FLOW_UNREACHABLE: 'the destination cannot be reached',
  ERR_FLOW_TIMEOUT: 'the destination did not answer in time',
  ERR_FLOW_LIMIT: 'a limit of this guest is reached',
  ERR_LISTEN_FAILED: 'a TCP address of the configuration cannot be listened on',
  ERR_ADMIN_FAILED: 'the admin endpoint of the parent cannot be reached, or did not do it',
  ERR_DNS_NAME: 'a text is not a domain name',
  ERR_DNS_MALFORMED: 'a DNS message is not well-formed',
  ERR_DNS_UPSTREAM: 'a resolver cannot be reached, or what it sent is no answer',
  ERR_DNS_TIMEOUT: 'a resolver did not answer in time',
  ERR_DNS_REFUSED: 'a resolver answered that it does not or cannot answer',
  ERR_DNS_DEADLINE: 'the deadline of a whole question has passed',
  ERR_DNS_LIMIT: 'an answer would cost more work than one question may',
  ERR_DNS_BOGUS: 'signed data is not what its zone signed',
  ERR_DNS_EXPIRED: 'every signature has expired by our clock',
  ERR_DNS_NOT_YET_VALID: 'every signature is from the future of our clock',
  ERR_DNS_KEY_MISSING: 'a zone does not publish the key that a DS record or a signature names',
  ERR_DNS_SIGNATURE_MISSING: 'data of a signed zone came without its signature',
  ERR_DNS_STRIPPED: 'a resolver answered for a signed zone without any DNSSEC records',
  ERR_DNS_DENIAL_MISSING: 'a signed zone’s denial is not proven by the records that came',
  ERR_DNS_ANCHOR: 'the trust anchor does not match the keys that its zone publishes',
  ERR_DEMO_FAILED: 'a step of the demo did not go as it should',
  ERR_STORE_UNAVAILABLE: 'the object store did not do it and may do it later',
  ERR_STORE_AMBIGUOUS: 'a write may or may not have reached the object store',
  ERR_STORE_DENIED: 'the object store, or the operator’s grant, does not permit it',
  ERR_STORE_LIMIT: 'a key, an object or a quota is over its limit at the object store',
  ERR_STORE_CORRUPT: 'the object store answered with something that cannot be its answer',
  ERR_STORE_UNSUITABLE: 'the object store does not honour conditional writes, and cannot be used',
  ERR_VOLUME_NOT_FOUND: 'the volume does not exist; creating it is an explicit act',
  ERR_VOLUME_EXISTS: 'a volume is there already, and is never made anew',
  ERR_VOLUME_KEY: 'the key does not open the volume, or its header was changed',
  ERR_VOLUME_VERSION: 'the volume is of a version of the format that this program does not read',
  ERR_VOLUME_CORRUPT: 'what the object store returned is not what the guest wrote',
  ERR_VOLUME_MISSING: 'the object store lacks an object that the volume needs',
  ERR_VOLUME_STALE: 'the object store holds no state as new as the anchor asks for',
  ERR_VOLUME_IN_USE: 'the volume was not detached; whoever takes it over must say so',
  ERR_VOLUME_FENCED: 'another instance has attached the volume, and this one is shut out for good',
  ERR_VOLUME_POISONED: 'a write did not reach the store in time; nothing later may pretend that it did',
  ERR_VOLUME_UNAVAILABLE: 'the object store or the anchor could not be reached in time',
  ERR_VOLUME_CLOSED: 'the volume is detached',
  ERR_VOLUME_DELETED: 'the volume is being deleted, and nobody may attach it any more',
  ERR_VOLUME_LIMIT: 'a limit of the volume is reached',
  ERR_VOLUME_RANGE: 'an offset or length lies outside the volume',
  ERR_VOLUME_TOKEN: 'the owner has not authorised this restore',
  ERR_VOLUME_SNAPSHOT: 'no snapshot has that name, or one has it already',
  ERR_ANCHOR_UNKNOWN: 'the anchor does not know the volume, which never means that it is new',
  ERR_ANCHOR_UNAVAILABLE: 'the anchor did not do it, or did not say so, and may be asked again',
  ERR_ANCHOR_CORRUPT: 'the anchor answered with something that cannot be its answer',
  ERR_ANCHOR_DENIED: 'the anchor does not permit it',
  ERR_NBD_EXPORT: 'an NBD export cannot be served under its name',
  ERR_NBD_UNAVAILABLE: 'this kernel has no network block device',
  ERR_NBD_DENIED: 'attaching a block device needs CAP_SYS_ADMIN',
  ERR_NBD_BUSY: 'the block device is in use',
  ERR_NBD_FAILED: 'the kernel refused to attach, resize or detach the block device',
} as const;

export type ErrorCode = keyof typeof ERRORS;

/** One mistake in what a person wrote. `path` is dotted, with `[n]` for list entries; empty for the whole file. */
export interface Problem {
  readonly path: string;
  readonly found: string;
  readonly expected: string;
  /** 1-based line of the source, where it is known. */
  readonly line?: number;
}

export interface PosternErrorOptions {
  readonly cause?: unknown;
  readonly problems?: readonly Problem[];
}

/** The one error class of the project. Branch on `code`, never on the message. */
export class PosternError extends Error {
  override readonly name = 'PosternError';
  readonly code: ErrorCode;
  readonly problems: readonly Problem[];

  constructor(code: ErrorCode, message: string, options: PosternErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.problems = options.problems ?? [];
  }
}

/** True for an expected error, of any code or of the one given. */
export function isPosternError(error: unknown, code?: ErrorCode): error is PosternError {
  return error instanceof PosternError && (code === undefined || error.code === code);
}

/** `path: expected X, found Y`, the line a person reads for one problem. */
export function formatProblem(problem: Problem, source: string): string {
  const place = problem.line === undefined ? source : `${source}:${problem.line}`;
  const path = problem.path === '' ? '' : `${problem.path}: `;
  return `${place}: ${path}expected ${problem.expected}, found ${problem.found}`;
}
