import { type ErrorCode, isPosternError } from '../../../shared/errors.ts';
import { formatAddress, parseAddress } from '../../../shared/policy/address.ts';
import type { DnssecState } from '../../../shared/policy/types.ts';
import type { LeaseGrant, LeaseTable } from '../leases.ts';
import { FLAG, HEADER_BYTES, type Message, type Question, readMessage } from '../message.ts';
import { rdataText } from '../presentation.ts';
import type { RRset } from '../rrset.ts';
import { CLASS_IN, RCODE, TYPE, typeName } from '../types.ts';
import type { Validator } from '../validator.ts';
import type { Verdict } from '../verdict.ts';
import { AnswerCache } from './answer-cache.ts';
import { EDE, edeOf } from './ede.ts';
import { encodeReply, type Reply } from './encode-answer.ts';
import type { NamePolicy } from './name-policy.ts';

/** What an application may ask for without a rule of its own; TXT and NULL carry data out as well as in. */
export const DEFAULT_TYPES: readonly number[] = [TYPE.A, TYPE.AAAA, TYPE.CNAME, TYPE.HTTPS, TYPE.SVCB];
const RCODE_BADVERS = 16;
const OPCODE_MASK = 0x7800;
const REFUSAL_TTL_SECONDS = 0;
const ADDRESS_TYPES = [TYPE.A, TYPE.AAAA] as const;
/** So that applications which keep it ask again before a busy guest may have given the stand-in up. */
const STAND_IN_TTL_SECONDS = 60;
const NO_DATA: Reply = {
  rcode: RCODE.NOERROR,
  answers: [],
  authority: [],
  ttlSeconds: REFUSAL_TTL_SECONDS,
  isSecure: false,
};

export interface ResponderOptions {
  readonly validator: Validator;
  readonly policy: NamePolicy;
  readonly leases: LeaseTable;
  /** RR types that are answered; others are refused here. */
  readonly types?: readonly number[];
  /** Where names are given addresses of this machine instead of their own. */
  readonly standIns?: StandInSource | undefined;
  /** Told of every refusal and failure, for the audit log; it limits its own rate. */
  readonly onRefused?: (question: Question, refusal: QuestionRefusal) => void;
}

/** See guest/capture/stand-ins.ts. */
export interface StandInSource {
  /**
   * An IPv4 loopback address at which the name's flows are taken, from now on.
   * @throws PosternError ERR_LISTEN_FAILED, ERR_FLOW_LIMIT
   */
  addressFor(name: string): Promise<string>;
}

export interface QuestionRefusal {
  /** `refused` by the policy, or `failed`: nothing that could be released was to be had. */
  readonly kind: 'refused' | 'failed';
  /** For a person. */
  readonly reason: string;
  readonly code?: ErrorCode;
  readonly dnssec?: DnssecState;
}

export interface QuestionCounters {
  answered: number;
  refused: number;
  failed: number;
}

/** A reply that may be given again while its verdict holds, to whom asks the same. */
interface Released extends Reply {
  readonly lease: LeaseGrant | undefined;
}

/** Turns an application's question into its answer: policy first, then proof, then the lease, then the octets. */
export class Responder {
  readonly #options: ResponderOptions;
  readonly #types: ReadonlySet<number>;
  readonly #answers = new AnswerCache();
  readonly counters: QuestionCounters = { answered: 0, refused: 0, failed: 0 };

  constructor(options: ResponderOptions) {
    this.#options = options;
    this.#types = new Set(options.types ?? DEFAULT_TYPES);
  }

  /** The answer to a datagram whose like was answered before; its lease is granted anew. */
  repeat(wire: Buffer): Buffer | undefined {
    const known = this.#answers.recall(wire);
    if (known === undefined) return undefined;
    const { octets, ttlSeconds, lease } = known;
    if (lease !== undefined) this.#options.leases.grant({ ...lease, ttlSeconds });
    this.counters.answered += 1;
    return octets;
  }

  /** The answer's octets; undefined for what deserves none (no question, or an answer itself). */
  async respond(wire: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    if (wire.length < HEADER_BYTES || (wire.readUInt16BE(2) & FLAG.QR) !== 0) return undefined;
    let asked: Message;
    try {
      asked = readMessage(wire);
    } catch (error) {
      if (!isPosternError(error)) throw error;
      return bareRefusal(wire, RCODE.FORMERR);
    }
    if ((asked.flags & OPCODE_MASK) !== 0) return bareRefusal(wire, RCODE.NOTIMP);
    const { question } = asked;
    if (question === undefined) return bareRefusal(wire, RCODE.FORMERR);
    // A name that was written with a pointer cannot be echoed; no honest asker has anything to point to.
    if (wire.readUInt16BE(HEADER_BYTES + question.name.key.length) !== question.type)
      return bareRefusal(wire, RCODE.FORMERR);
    const reply = await this.#reply(asked, question);
    if (reply.error === undefined) this.counters.answered += 1;
    const octets = encodeReply(reply, wire, asked, transport);
    // A stand-in is given out by its source each time, which keeps it alive.
    if ('lease' in reply && transport === 'udp' && this.#options.standIns === undefined) {
      const { lease, ttlSeconds } = reply;
      const questionBytes = HEADER_BYTES + question.name.key.length + 4;
      this.#answers.remember(wire, questionBytes, { octets, ttlSeconds, lease });
    }
    return octets;
  }

  async #reply(asked: Message, question: Question): Promise<Reply | Released> {
    const { policy, validator } = this.#options;
    if (asked.edns !== undefined && asked.edns.version !== 0) return failure(RCODE_BADVERS);
    if (question.class !== CLASS_IN) return this.#refuse(question, 'only class IN is answered');
    if (!this.#types.has(question.type)) {
      return this.#refuse(question, `questions for ${typeName(question.type)} are not allowed`);
    }
    const name = policyName(question);
    if (!policy.mayResolve(name)) return this.#refuse(question, 'no rule of the policy names it');
    if (this.#options.standIns !== undefined && question.type !== TYPE.CNAME)
      return this.#standIn(asked, question, name, this.#options.standIns);
    const verdict = await validator.resolve(question.name, question.type);
    if (verdict.state === 'bogus') return this.#bogus(asked, question, verdict);
    return this.#release(asked, question, name, verdict);
  }

  /** With CD the application takes what came, proven or not (RFC 4035 section 4.9.2); no lease comes of it. */
  async #bogus(asked: Message, question: Question, verdict: Verdict): Promise<Reply> {
    const { validator } = this.#options;
    const { reason, code, state } = verdict;
    this.#tell(question, { kind: 'failed', reason, dnssec: state, ...(code && { code }) });
    const error = { code: edeOf(code), text: reason };
    if ((asked.flags & FLAG.CD) === 0) return failure(RCODE.SERVFAIL, error);
    const raw = await validator.fetch(question.name, question.type);
    return raw === undefined ? failure(RCODE.SERVFAIL, error) : { ...raw, isSecure: false, error };
  }

  /**
   * The name's stand-in, where some address of it may be dialled; either family will do, as the flow is asked for by
   * its name again. Nothing else is told of the name: its own addresses lead nowhere from here.
   */
  async #standIn(asked: Message, question: Question, name: string, source: StandInSource): Promise<Reply> {
    if (question.type !== TYPE.A) return NO_DATA;
    const { validator } = this.#options;
    const verdicts = await Promise.all(ADDRESS_TYPES.map((type) => validator.resolve(question.name, type)));
    const bound = verdicts.flatMap((verdict) => this.#bind(verdict, name) ?? []);
    const [first] = verdicts;
    if (bound.length === 0 || first === undefined) {
      const bogus = verdicts.find(({ state }) => state === 'bogus');
      if (bogus !== undefined) return this.#bogus(asked, question, bogus);
      const addressed = verdicts.find((verdict) => addressesIn(verdict) !== undefined) ?? first;
      return addressed === undefined ? NO_DATA : this.#release(asked, question, name, addressed);
    }
    try {
      const octets = Buffer.from((await source.addressFor(name)).split('.').map(Number));
      const ttlSeconds = Math.min(STAND_IN_TTL_SECONDS, ...verdicts.map((verdict) => verdict.ttlSeconds));
      const { name: owner } = question;
      const rrset = { name: owner, type: TYPE.A, ttlSeconds, rdata: [octets], signatures: [] };
      return { rcode: RCODE.NOERROR, answers: [rrset], authority: [], ttlSeconds, isSecure: false };
    } catch (error) {
      if (!isPosternError(error)) throw error;
      const { code, message } = error;
      this.#tell(question, { kind: 'failed', reason: message, code });
      return failure(RCODE.SERVFAIL, { code: EDE.OTHER, text: message });
    }
  }

  #release(asked: Message, question: Question, name: string, verdict: Verdict): Reply | Released {
    const { rcode, answers, ttlSeconds, state } = verdict;
    const addressed = addressesIn(verdict);
    if (state === 'indeterminate') return this.#indeterminate(question, verdict);
    const authority = verdict.soa === undefined ? [] : [verdict.soa];
    const reply = {
      rcode,
      answers,
      authority: [...authority, ...verdict.proof],
      ttlSeconds,
      isSecure: state === 'secure',
      lease: undefined,
    };
    if (asked.edns?.dnssecOk !== true) reply.authority = authority;
    if (addressed === undefined) return reply;
    const bound = this.#bind(verdict, name);
    if (bound === undefined) return this.#unbindable(question, addressed, verdict);
    const { lease, rdata } = bound;
    const isWhole = rdata.length === addressed.rdata.length;
    const kept = isWhole ? addressed : { ...addressed, rdata, signatures: [] };
    return { ...reply, lease, answers: answers.map((rrset) => (rrset === addressed ? kept : rrset)) };
  }

  /** Leases the addresses of an answer to the name, as far as the policy lets it have any. */
  #bind(verdict: Verdict, name: string): { lease: LeaseGrant; rdata: Buffer[] } | undefined {
    const addressed = addressesIn(verdict);
    if (addressed === undefined || verdict.state === 'bogus' || verdict.state === 'indeterminate')
      return undefined;
    const bound = this.#bindable(addressed, name, verdict);
    if (bound.length === 0) return undefined;
    const lease = {
      name,
      chain: chainOf(verdict, name),
      addresses: bound.map(({ address }) => address),
      ttlSeconds: verdict.ttlSeconds,
      dnssec: verdict.state,
    };
    this.#options.leases.grant(lease);
    return { lease, rdata: bound.map(({ rdata }) => rdata) };
  }

  /** The addresses that some rule lets this name have: special space and unsigned answers under `require` are not. */
  #bindable(rrset: RRset, name: string, verdict: Verdict): { rdata: Buffer; address: string }[] {
    const { policy } = this.#options;
    return rrset.rdata.flatMap((rdata) => {
      const parsed = parseAddress(rdataText(rrset.type, rdata));
      const address = parsed === undefined ? undefined : formatAddress(parsed);
      return address !== undefined && policy.mayBind(name, address, verdict.state)
        ? [{ rdata, address }]
        : [];
    });
  }

  #unbindable(question: Question, rrset: RRset, verdict: Verdict): Reply {
    const addresses = rrset.rdata.map((rdata) => rdataText(rrset.type, rdata)).join(', ');
    return this.#refuse(
      question,
      `the policy allows none of its addresses (${addresses}, ${verdict.state})`,
      verdict.state,
    );
  }

  #indeterminate(question: Question, { reason, state }: Verdict): Reply {
    this.#tell(question, { kind: 'failed', reason, dnssec: state });
    return failure(RCODE.SERVFAIL, { code: EDE.DNSSEC_INDETERMINATE, text: reason });
  }

  #refuse(question: Question, reason: string, dnssec?: DnssecState): Reply {
    this.#tell(question, { kind: 'refused', reason, ...(dnssec && { dnssec }) });
    return failure(RCODE.REFUSED, { code: EDE.BLOCKED, text: reason });
  }

  #tell(question: Question, refusal: QuestionRefusal): void {
    this.counters[refusal.kind] += 1;
    this.#options.onRefused?.(question, refusal);
  }
}

/** The addresses that the question was for. */
function addressesIn({ answers, type }: Verdict): RRset | undefined {
  return answers.find((rrset) => rrset.type === type && isAddress(rrset));
}

function isAddress({ type }: RRset): boolean {
  return type === TYPE.A || type === TYPE.AAAA;
}

/** As the policy spells names: without the last dot. */
function policyName({ name }: Question): string {
  return name.toString().slice(0, -1);
}

function chainOf(verdict: Verdict, name: string): string[] {
  const owners = verdict.answers.map((rrset) => rrset.name.toString().slice(0, -1));
  return [...new Set([name, ...owners])];
}

function failure(rcode: number, error?: Reply['error']): Reply {
  const reply = { rcode, answers: [], authority: [], ttlSeconds: REFUSAL_TTL_SECONDS, isSecure: false };
  return error === undefined ? reply : { ...reply, error };
}

/** For a message that could not be read: its id, and the header alone. */
function bareRefusal(wire: Buffer, rcode: number): Buffer {
  const head = Buffer.alloc(HEADER_BYTES);
  wire.copy(head, 0, 0, 2);
  head.writeUInt16BE(FLAG.QR | FLAG.RA | (wire.readUInt16BE(2) & (OPCODE_MASK | FLAG.RD)) | rcode, 2);
  return head;
}
