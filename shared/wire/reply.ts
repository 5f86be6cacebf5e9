import { type ErrorCode, PosternError } from '../errors.ts';

/** The one answer to every stream but the control stream: `R`, status, address index, 0. See reply.md. */
export const REPLY_BYTES = 4;
const REPLY_MARK = 0x52;

interface StatusMeaning {
  readonly value: number;
  /** The errno that an application sees, as a real network would have given it. */
  readonly errno: string;
  readonly code: ErrorCode;
}

const STATUS = {
  ok: { value: 0, errno: '', code: 'ERR_TRANSPORT_FAILED' },
  // What Linux makes of ICMP "communication administratively prohibited".
  denied: { value: 1, errno: 'EHOSTUNREACH', code: 'ERR_FLOW_DENIED' },
  refused: { value: 2, errno: 'ECONNREFUSED', code: 'ERR_FLOW_REFUSED' },
  unreachable: { value: 3, errno: 'EHOSTUNREACH', code: 'ERR_FLOW_UNREACHABLE' },
  timeout: { value: 4, errno: 'ETIMEDOUT', code: 'ERR_FLOW_TIMEOUT' },
  // What connect() says when a host has run out of ports.
  limit: { value: 5, errno: 'EADDRNOTAVAIL', code: 'ERR_FLOW_LIMIT' },
  version: { value: 16, errno: 'EPROTO', code: 'ERR_WIRE_VERSION' },
  malformed: { value: 17, errno: 'EPROTO', code: 'ERR_WIRE_MALFORMED' },
  unregistered: { value: 18, errno: 'EACCES', code: 'ERR_SESSION_UNREGISTERED' },
  unproven: { value: 19, errno: 'EACCES', code: 'ERR_SESSION_PROOF' },
  taken: { value: 20, errno: 'EACCES', code: 'ERR_SESSION_TAKEN' },
  unknownGuest: { value: 21, errno: 'EACCES', code: 'ERR_SESSION_UNKNOWN_GUEST' },
} as const satisfies Record<string, StatusMeaning>;

export type ReplyStatus = keyof typeof STATUS;
export const REPLY_STATUSES = Object.keys(STATUS) as ReplyStatus[];
const BY_VALUE = new Map<number, ReplyStatus>(REPLY_STATUSES.map((name) => [STATUS[name].value, name]));

export interface Reply {
  readonly status: ReplyStatus;
  /** Which of the OPEN's addresses was connected; 0 unless the status is ok. */
  readonly addressIndex: number;
}

export function encodeReply(status: ReplyStatus, addressIndex = 0): Buffer {
  return Buffer.from([REPLY_MARK, STATUS[status].value, addressIndex, 0]);
}

/** @throws PosternError ERR_WIRE_MALFORMED for anything but exactly one reply of this version. */
export function decodeReply(bytes: Buffer): Reply {
  const status = bytes.length === REPLY_BYTES ? BY_VALUE.get(bytes.readUInt8(1)) : undefined;
  if (status === undefined || bytes.readUInt8(0) !== REPLY_MARK || bytes.readUInt8(3) !== 0) {
    throw new PosternError('ERR_WIRE_MALFORMED', `reply ${bytes.subarray(0, REPLY_BYTES).toString('hex')}`);
  }
  return { status, addressIndex: bytes.readUInt8(2) };
}

/** The errno that the application behind a flow sees for a status; empty for ok. */
export function errnoOf(status: ReplyStatus): string {
  return STATUS[status].errno;
}

/** The coded error for a status that is not ok. */
export function errorOfStatus(status: Exclude<ReplyStatus, 'ok'>, detail: string): PosternError {
  return new PosternError(STATUS[status].code, detail);
}

/** The status that tells a peer of this error; undefined for an error that has none (close without an answer). */
export function statusOfError(code: ErrorCode): ReplyStatus | undefined {
  if (code === 'ERR_WIRE_TOO_LARGE') return 'malformed';
  return REPLY_STATUSES.find((name) => name !== 'ok' && STATUS[name].code === code);
}
