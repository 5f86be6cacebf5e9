import ipaddr from 'ipaddr.js';
import { type Endpoint, encodeAddress } from '../../shared/wire/endpoint.ts';

/** RFC 1928. Greeting (2 + 255) and the longest request (4 + 1 + 255 + 2) fit into this many bytes. */
export const SOCKS_MESSAGE_MAX_BYTES = 262;
const VERSION = 5;
const NO_AUTHENTICATION = 0;

/** Section 6. */
export const SOCKS_REPLIES = {
  succeeded: 0,
  failure: 1,
  notAllowed: 2,
  networkUnreachable: 3,
  hostUnreachable: 4,
  refused: 5,
  ttlExpired: 6,
  commandNotSupported: 7,
  addressTypeNotSupported: 8,
} as const;
export type SocksReply = keyof typeof SOCKS_REPLIES;

export interface SocksRequest {
  readonly command: 'connect' | 'bind' | 'udp-associate';
  /** As the client wrote it: a name, or the canonical text of an address. */
  readonly host: string;
  readonly port: number;
}

export type SocksStep =
  | { readonly kind: 'more' }
  /** Send these bytes and go on. */
  | { readonly kind: 'answer'; readonly bytes: Buffer }
  /** `rest` is what came behind the request: the first bytes of the flow. */
  | { readonly kind: 'request'; readonly request: SocksRequest; readonly rest: Buffer }
  /** Send these bytes (if any) and close. */
  | { readonly kind: 'close'; readonly bytes: Buffer; readonly why: string };

/**
 * The server's side of the handshake, fed with whatever pieces come in. It keeps no more than one message and what
 * came in the same piece behind it.
 */
export class SocksHandshake {
  #pending: Buffer = Buffer.alloc(0);
  #greeted = false;

  /** Takes one piece (or none, after an `answer`) and says what to do next. Not called again after request or close. */
  push(piece: Buffer): SocksStep {
    this.#pending = this.#pending.length === 0 ? piece : Buffer.concat([this.#pending, piece]);
    return this.#greeted ? this.#readRequest() : this.#readGreeting();
  }

  /** Section 3: `version | count | methods`. */
  #readGreeting(): SocksStep {
    const bytes = this.#pending;
    if (bytes.length > 0 && bytes[0] !== VERSION)
      return close(`SOCKS version ${bytes[0]}, expected ${VERSION}`);
    const count = bytes[1];
    if (count === undefined || bytes.length < 2 + count) return { kind: 'more' };
    if (!bytes.subarray(2, 2 + count).includes(NO_AUTHENTICATION)) {
      return close('the client offers no method without authentication', Buffer.from([VERSION, 0xff]));
    }
    this.#pending = bytes.subarray(2 + count);
    this.#greeted = true;
    return { kind: 'answer', bytes: Buffer.from([VERSION, NO_AUTHENTICATION]) };
  }

  /** Section 4: `version | command | 0 | type | address | port`. */
  #readRequest(): SocksStep {
    const bytes = this.#pending;
    const [version, command, reserved, type, first] = bytes;
    if (version === undefined) return { kind: 'more' };
    if (version !== VERSION) return close(`SOCKS request of version ${version}`);
    if (type === undefined) return { kind: 'more' };
    if (reserved !== 0) return close('a reserved byte is not 0', encodeSocksReply('failure'));
    const name = commandName(command);
    if (name === undefined) return close(`command ${command}`, encodeSocksReply('commandNotSupported'));
    const start = type === 3 ? 5 : 4;
    const length = type === 1 ? 4 : type === 4 ? 16 : type === 3 ? first : 0;
    if (length === undefined) return { kind: 'more' };
    if (type !== 3 && length === 0) {
      return close(`address type ${type}`, encodeSocksReply('addressTypeNotSupported'));
    }
    const end = start + length + 2;
    if (bytes.length < end) return { kind: 'more' };
    const host = hostText(type, bytes.subarray(start, start + length));
    const port = bytes.readUInt16BE(end - 2);
    return {
      kind: 'request',
      request: { command: name, host, port },
      rest: Buffer.from(bytes.subarray(end)),
    };
  }
}

/** What stands for an address of the parent's side, which is of no use to the client. */
const NOWHERE: Endpoint = { address: '0.0.0.0', port: 0 };

/** Section 6. The bound address is where a client sends its datagrams. */
export function encodeSocksReply(reply: SocksReply, { address, port }: Endpoint = NOWHERE): Buffer {
  const [family, ...octets] = encodeAddress(address);
  const type = family === 4 ? 1 : 4;
  return Buffer.from([VERSION, SOCKS_REPLIES[reply], 0, type, ...octets, port >> 8, port & 0xff]);
}

function commandName(command: number | undefined): SocksRequest['command'] | undefined {
  if (command === 1) return 'connect';
  if (command === 2) return 'bind';
  return command === 3 ? 'udp-associate' : undefined;
}

/** A name in UTF-8 (type 3), or the octets of an address. */
export function hostText(type: number, bytes: Buffer): string {
  // What is no UTF-8 becomes a character that no name has, and the policy refuses it.
  return type === 3 ? bytes.toString('utf8') : ipaddr.fromByteArray([...bytes]).toString();
}

function close(why: string, bytes: Buffer = Buffer.alloc(0)): SocksStep {
  return { kind: 'close', bytes, why };
}
