import type { Socket } from 'node:net';
import { type ErrorCode, isPosternError, PosternError } from '../../shared/errors.ts';
import type { FlowEnd } from '../../shared/flow/flow.ts';
import type { CompiledPolicy } from '../../shared/policy/compile.ts';
import { decideIngress } from '../../shared/policy/ingress.ts';
import type { IngressRule } from '../../shared/policy/types.ts';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { listenStream } from '../../shared/transport/connect.ts';
import type { Listener, Stream } from '../../shared/transport/transport.ts';
import { decodeStreamHeader, HEADER_BYTES, proofHolds } from '../../shared/wire/header.ts';
import { decodeInboundOpen, type InboundOpen } from '../../shared/wire/open.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { encodeReply, statusOfError } from '../../shared/wire/reply.ts';
import type { Audit } from '../audit.ts';
import type { FlowTable } from '../flow/flow-table.ts';
import { Tunnel } from '../flow/tunnel.ts';
import type { LiveSession, SessionClient } from '../session/client.ts';
import { encodeProxyV2 } from './proxy-v2.ts';
import { connectWorkload } from './workload-socket.ts';

/** The parent sends header and body in one piece. */
export const INBOUND_HEADER_TIMEOUT_MS = 5_000;
/** Streams that are not flows yet: read, or being connected. More are closed at once. */
export const INBOUND_PENDING_MAX = 256;
/** How long a refused parent may take to read its reply. */
const REFUSAL_LINGER_MS = 1_000;

export interface InboundServerOptions {
  readonly listen: TransportAddress;
  readonly policy: CompiledPolicy;
  readonly session: SessionClient;
  readonly table: FlowTable;
  readonly audit: Audit;
  readonly headerTimeoutMs?: number;
  onDone(tunnel: Tunnel, end: FlowEnd): void;
}

interface ProvenOpen {
  readonly session: LiveSession;
  readonly flowId: number;
  readonly open: InboundOpen;
}

/** Takes the streams that the parent opens for clients, and connects them to the workload as the policy says. */
export class InboundServer {
  readonly #options: InboundServerOptions;
  #pendingCount = 0;

  constructor(options: InboundServerOptions) {
    this.#options = options;
  }

  /** @throws PosternError ERR_TRANSPORT_* */
  listen(): Promise<Listener> {
    return listenStream(this.#options.listen, (stream) => this.#accept(stream));
  }

  #accept(stream: Stream): void {
    stream.on('error', () => {});
    if (this.#pendingCount >= INBOUND_PENDING_MAX) {
      this.#options.audit.malformed('inbound', `${INBOUND_PENDING_MAX} inbound streams are pending`);
      stream.destroy();
      return;
    }
    this.#pendingCount += 1;
    this.#serve(stream)
      .catch((error: unknown) => {
        if (!isPosternError(error)) throw error;
        refuse(stream, error.code);
      })
      .finally(() => {
        this.#pendingCount -= 1;
      });
  }

  async #serve(stream: Stream): Promise<void> {
    const { audit } = this.#options;
    const proven = await this.#readOpen(stream).catch((error: unknown) => {
      if (isPosternError(error)) audit.malformed('inbound', `inbound stream refused: ${error.message}`);
      throw error;
    });
    const rule = this.#ruleFor(proven.open);
    const local = await connectWorkload(rule, stream).catch((error: unknown) => {
      if (isPosternError(error)) audit.failed(recordOf(proven.open, error.code, rule), error.message);
      throw error;
    });
    this.#join(stream, local, proven, rule);
  }

  async #readOpen(stream: Stream): Promise<ProvenOpen> {
    const timeoutMs = this.#options.headerTimeoutMs ?? INBOUND_HEADER_TIMEOUT_MS;
    const deadline = performance.now() + timeoutMs;
    const bytes = await readExactly(stream, HEADER_BYTES, timeoutMs);
    const header = decodeStreamHeader(bytes);
    if (header.kind !== 'inbound') throw malformed(`a stream of kind ${header.kind}`);
    const body = await readExactly(stream, header.bodyLength, Math.max(1, deadline - performance.now()));
    const session = this.#options.session.current;
    if (session === undefined) throw new PosternError('ERR_SESSION_UNREGISTERED', 'there is no session now');
    if (!proofHolds(session.key, bytes, body)) {
      throw new PosternError('ERR_SESSION_PROOF', 'the stream does not prove the session key');
    }
    // The parent's flows are odd; an id that lives is a replay, or a mistake of the parent's.
    if (header.flowId % 2 !== 1) throw malformed(`flow id ${header.flowId}`);
    if (this.#options.table.has(header.flowId)) throw malformed(`flow id ${header.flowId} twice`);
    return { session, flowId: header.flowId, open: decodeInboundOpen(body) };
  }

  #ruleFor(open: InboundOpen): IngressRule {
    const { servicePort: port, client } = open;
    const decision = decideIngress(this.#options.policy, { protocol: 'tcp', port, client: client.address });
    if (decision.verdict === 'allow') return decision.rule;
    this.#options.audit.refused('inbound.refused', recordOf(open, decision.reason, decision.rule));
    throw new PosternError('ERR_FLOW_DENIED', decision.reason);
  }

  #join(stream: Stream, local: Socket, { session, flowId, open }: ProvenOpen, rule: IngressRule): void {
    const { table, onDone, audit } = this.#options;
    const { address, port } = rule.to;
    const client = formatEndpoint(open.client);
    const labels = { via: 'inbound', protocol: 'tcp', port, address, rule: rule.label, client } as const;
    let tunnel: Tunnel;
    try {
      // Asked again: two streams with one id may have been on their way at the same time.
      if (table.has(flowId)) throw malformed(`flow id ${flowId} twice`);
      tunnel = new Tunnel({ flowId, labels, stream, session, table, onDone });
    } catch (error) {
      local.destroy();
      throw error;
    }
    if (rule.proxyProtocol === 'v2') local.write(encodeProxyV2(open.client, open.local));
    stream.write(encodeReply('ok'));
    audit.flowOpened(tunnel);
    tunnel.splice(local);
  }
}

/** Coded and bounded: the reply, then the end, whether the peer reads it or not. */
function refuse(stream: Stream, code: ErrorCode): void {
  const status = statusOfError(code);
  if (status === undefined || stream.destroyed) {
    stream.destroy();
    return;
  }
  const timer = setTimeout(() => stream.destroy(), REFUSAL_LINGER_MS);
  stream.once('close', () => clearTimeout(timer));
  stream.resume();
  stream.end(encodeReply(status));
}

function recordOf({ servicePort, client }: InboundOpen, reason: string, rule?: IngressRule) {
  const destination = `service port ${servicePort}`;
  const facts = { via: 'inbound', protocol: 'tcp', destination, port: servicePort, reason } as const;
  return { ...facts, client: formatEndpoint(client), ...(rule !== undefined && { rule: rule.label }) };
}

function formatEndpoint({ address, port }: InboundOpen['client']): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function malformed(detail: string): PosternError {
  return new PosternError('ERR_WIRE_MALFORMED', detail);
}
