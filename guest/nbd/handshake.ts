import { isPosternError } from '../../shared/errors.ts';
import {
  CLIENT_FLAGS_BYTES,
  CONTEXT_BASE_ALLOCATION,
  GREETING_BYTES,
  HANDSHAKE_FLAG,
  IHAVEOPT,
  NBD_MAGIC,
  OPTION,
  OPTION_HEADER_BYTES,
  OPTION_REPLY as REPLY,
} from './constants.ts';
import type { Agreement, ExportTable, NbdExport } from './export.ts';
import { exportNameReply, infoPayloads } from './info.ts';
import type { Intake } from './intake.ts';
import { MAX_OPTION_BYTES, MAX_OPTIONS, MAX_SKIPPED_OPTION_BYTES, MAX_STRING_BYTES } from './limits.ts';
import {
  type ContextOption,
  decodeContextOption,
  decodeExportName,
  decodeInfoOption,
  encodeNumberAndString,
  encodeOptionReply,
  type InfoOption,
} from './options.ts';

/** How a handshake ends. `violation` is for the log; without one the client simply left. */
export type HandshakeEnd =
  | { readonly kind: 'agreed'; readonly agreement: Agreement }
  | { readonly kind: 'close'; readonly violation?: string };

type State =
  | { readonly kind: 'flags' }
  | { readonly kind: 'option' }
  | { readonly kind: 'data'; readonly option: number; readonly length: number }
  | { readonly kind: 'skip'; readonly option: number; left: number };

/** The id by which block status replies name base:allocation. */
export const ALLOCATION_CONTEXT_ID = 1;

/**
 * The server's side of the fixed newstyle handshake (proto.md, "Fixed newstyle negotiation") as a state machine over
 * the bytes that have come: `step` takes what it understands and answers the end once there is one.
 */
export class Handshake {
  readonly #exports: ExportTable;
  readonly #send: (bytes: Buffer) => void;
  #state: State = { kind: 'flags' };
  #noZeroes = false;
  #options = 0;
  #structured = false;
  /** The export for which the client has selected base:allocation. */
  #allocationOf: NbdExport | undefined;

  constructor(exports: ExportTable, send: (bytes: Buffer) => void) {
    this.#exports = exports;
    this.#send = send;
  }

  greet(): void {
    const bytes = Buffer.allocUnsafe(GREETING_BYTES);
    bytes.writeBigUInt64BE(NBD_MAGIC, 0);
    bytes.writeBigUInt64BE(IHAVEOPT, 8);
    bytes.writeUInt16BE(HANDSHAKE_FLAG.FIXED_NEWSTYLE | HANDSHAKE_FLAG.NO_ZEROES, 16);
    this.#send(bytes);
  }

  /** Undefined: more bytes are needed. After an end the rest of the intake belongs to the requests. */
  step(intake: Intake): HandshakeEnd | undefined {
    for (;;) {
      const before = this.#state;
      const end = this.#advance(intake, before);
      if (end !== undefined) return end;
      if (this.#state === before) return undefined;
    }
  }

  #advance(intake: Intake, state: State): HandshakeEnd | undefined {
    switch (state.kind) {
      case 'flags':
        return this.#clientFlags(intake.take(CLIENT_FLAGS_BYTES));
      case 'option':
        return this.#optionHeader(intake.take(OPTION_HEADER_BYTES));
      case 'data': {
        const data = intake.take(state.length);
        if (data === undefined) return undefined;
        this.#state = { kind: 'option' };
        return this.#option(state.option, data);
      }
      case 'skip':
        state.left -= intake.skip(state.left);
        if (state.left > 0) return undefined;
        this.#state = { kind: 'option' };
        this.#refuse(state.option, REPLY.ERR_TOO_BIG, `an option has at most ${MAX_OPTION_BYTES} bytes`);
    }
    return undefined;
  }

  #clientFlags(bytes: Buffer | undefined): HandshakeEnd | undefined {
    if (bytes === undefined) return undefined;
    const flags = bytes.readUInt32BE();
    const known = HANDSHAKE_FLAG.FIXED_NEWSTYLE | HANDSHAKE_FLAG.NO_ZEROES;
    // The protocol wants the connection dropped: the client counts on something that this server does not know.
    if ((flags & ~known) !== 0) return violation(`unknown client flags 0x${flags.toString(16)}`);
    this.#noZeroes = (flags & HANDSHAKE_FLAG.NO_ZEROES) !== 0;
    this.#state = { kind: 'option' };
    return undefined;
  }

  #optionHeader(bytes: Buffer | undefined): HandshakeEnd | undefined {
    if (bytes === undefined) return undefined;
    if (bytes.readBigUInt64BE() !== IHAVEOPT) return violation('option without its magic');
    this.#options += 1;
    if (this.#options > MAX_OPTIONS) return violation(`more than ${MAX_OPTIONS} options`);
    const option = bytes.readUInt32BE(8);
    const length = bytes.readUInt32BE(12);
    if (length > MAX_SKIPPED_OPTION_BYTES) return violation(`option of ${length} bytes`);
    if (length <= MAX_OPTION_BYTES) this.#state = { kind: 'data', option, length };
    else if (option === OPTION.EXPORT_NAME) return violation('export name over the limit');
    else this.#state = { kind: 'skip', option, left: length };
    return undefined;
  }

  #option(option: number, data: Buffer): HandshakeEnd | undefined {
    try {
      return this.#answer(option, data);
    } catch (error) {
      if (!isPosternError(error, 'ERR_WIRE_MALFORMED')) throw error;
      // EXPORT_NAME has no error reply: closing is the only refusal that it knows.
      if (option === OPTION.EXPORT_NAME) return violation(error.message);
      this.#refuse(option, REPLY.ERR_INVALID, error.message);
      return undefined;
    }
  }

  #answer(option: number, data: Buffer): HandshakeEnd | undefined {
    switch (option) {
      case OPTION.EXPORT_NAME:
        return this.#exportName(decodeExportName(data));
      case OPTION.ABORT:
        this.#reply(option, REPLY.ACK);
        return { kind: 'close' };
      case OPTION.LIST:
        this.#list(data);
        return undefined;
      case OPTION.INFO:
      case OPTION.GO:
        return this.#info(option, decodeInfoOption(data));
      case OPTION.STRUCTURED_REPLY:
        if (data.length > 0) this.#refuse(option, REPLY.ERR_INVALID, 'STRUCTURED_REPLY takes no data');
        else {
          this.#structured = true;
          this.#reply(option, REPLY.ACK);
        }
        return undefined;
      case OPTION.LIST_META_CONTEXT:
      case OPTION.SET_META_CONTEXT:
        this.#contexts(option, decodeContextOption(data));
        return undefined;
      case OPTION.STARTTLS:
        this.#refuse(option, REPLY.ERR_POLICY, 'no TLS: the socket does not leave this machine');
        return undefined;
      case OPTION.EXTENDED_HEADERS:
        this.#refuse(option, REPLY.ERR_UNSUP, 'extended headers are not supported');
        return undefined;
      default:
        this.#refuse(option, REPLY.ERR_UNSUP, `option ${option} is not supported`);
        return undefined;
    }
  }

  #exportName(name: string): HandshakeEnd {
    const found = this.#exports.find(name);
    if (found === undefined) return violation(unknownExport(name));
    this.#send(exportNameReply(found, this.#structured, this.#noZeroes));
    return this.#agree(found);
  }

  #list(data: Buffer): void {
    if (data.length > 0) {
      this.#refuse(OPTION.LIST, REPLY.ERR_INVALID, 'LIST takes no data');
      return;
    }
    for (const { name, description = '' } of this.#exports.list()) {
      this.#reply(
        OPTION.LIST,
        REPLY.SERVER,
        encodeNumberAndString(Buffer.byteLength(name), name, description),
      );
    }
    this.#reply(OPTION.LIST, REPLY.ACK);
  }

  #info(option: number, { name, requests }: InfoOption): HandshakeEnd | undefined {
    const found = this.#exports.find(name);
    if (found === undefined) {
      this.#refuse(option, REPLY.ERR_UNKNOWN, unknownExport(name));
      return undefined;
    }
    for (const payload of infoPayloads(found, requests, this.#structured))
      this.#reply(option, REPLY.INFO, payload);
    this.#reply(option, REPLY.ACK);
    return option === OPTION.GO ? this.#agree(found) : undefined;
  }

  #contexts(option: number, { name, queries }: ContextOption): void {
    const setting = option === OPTION.SET_META_CONTEXT;
    // Whatever becomes of it, a SET ends what an earlier one had selected.
    if (setting) this.#allocationOf = undefined;
    if (!this.#structured) {
      this.#refuse(option, REPLY.ERR_INVALID, 'contexts need STRUCTURED_REPLY first');
      return;
    }
    const found = this.#exports.find(name);
    if (found === undefined) {
      this.#refuse(option, REPLY.ERR_UNKNOWN, unknownExport(name));
      return;
    }
    const asked = setting
      ? queries.includes(CONTEXT_BASE_ALLOCATION)
      : queries.length === 0 ||
        queries.some((query) => query === 'base:' || query === CONTEXT_BASE_ALLOCATION);
    if (asked) {
      const payload = encodeNumberAndString(ALLOCATION_CONTEXT_ID, CONTEXT_BASE_ALLOCATION);
      this.#reply(option, REPLY.META_CONTEXT, payload);
      if (setting) this.#allocationOf = found;
    }
    this.#reply(option, REPLY.ACK);
  }

  #agree(found: NbdExport): HandshakeEnd {
    const allocation = this.#allocationOf === found;
    return { kind: 'agreed', agreement: { export: found, structured: this.#structured, allocation } };
  }

  #reply(option: number, reply: number, payload?: Buffer): void {
    this.#send(encodeOptionReply(option, reply, payload));
  }

  #refuse(option: number, reply: number, text: string): void {
    this.#reply(option, reply, Buffer.from(text).subarray(0, MAX_STRING_BYTES));
  }
}

function violation(text: string): HandshakeEnd {
  return { kind: 'close', violation: text };
}

function unknownExport(name: string): string {
  return name === ''
    ? 'several exports are served, or none: name one'
    : `no export is named ${JSON.stringify(name)}`;
}
