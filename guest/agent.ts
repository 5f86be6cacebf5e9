import type { Server } from 'node:net';
import type { PosternError } from '../shared/errors.ts';
import type { FlowEnd } from '../shared/flow/flow.ts';
import { type Logger, LogRateLimiter } from '../shared/log.ts';
import { type CompiledPolicy, compilePolicy } from '../shared/policy/compile.ts';
import { formatTransportAddress } from '../shared/transport/address.ts';
import type { Listener } from '../shared/transport/transport.ts';
import { CAPABILITIES } from '../shared/wire/control.ts';
import { Audit } from './audit.ts';
import type { GuestConfig } from './config/load.ts';
import { Disks } from './disk/disks.ts';
import { FlowTable } from './flow/flow-table.ts';
import { Gate } from './flow/gate.ts';
import { FlowOpener } from './flow/opener.ts';
import type { Tunnel } from './flow/tunnel.ts';
import { InboundServer } from './inbound/server.ts';
import { relayOverSession } from './objects/session-relay.ts';
import { createHttpProxy } from './proxy/http-server.ts';
import { formatLoopback, type LoopbackAddress, listenLoopback } from './proxy/loopback.ts';
import { createSocksServer } from './proxy/socks5-server.ts';
import { NameService } from './resolve/service.ts';
import { SESSION_ADVICE } from './session/backoff.ts';
import { SessionClient, type SessionState } from './session/client.ts';
import { buildReport, type StatusReport } from './status/report.ts';
import { serveStatus } from './status/socket.ts';
import type { BoundProxies } from './workload/environment.ts';

/** How long flows may take to end by themselves when the agent stops. */
export const DRAIN_TIMEOUT_MS = 5_000;

export interface AgentOptions {
  readonly config: GuestConfig;
  /** KEY_BYTES. */
  readonly key: Buffer;
  readonly logger: Logger;
  /** Program and version, for the parent's log. */
  readonly name: string;
  readonly reapedCount?: () => number;
  /** Epoch seconds, from a clock that the guest trusts; by default the system's. */
  readonly clock?: () => number;
  /** Where keys of kind `env` are looked up. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

/** The agent: proxies on loopback, one session with the parent, flows between them. */
export class Agent {
  readonly audit: Audit;
  readonly session: SessionClient;
  readonly #options: AgentOptions;
  readonly #policy: CompiledPolicy;
  readonly #table = new FlowTable();
  readonly #disks: Disks;
  readonly #startedAt = new Date();
  readonly #retryLimiter = new LogRateLimiter();
  readonly #closers: (() => void | Promise<void>)[] = [];
  readonly #listeners: Record<string, string> = {};
  #proxies: BoundProxies = {};
  #names: NameService | undefined;
  #closing = false;

  constructor(options: AgentOptions) {
    const { config, key, name } = options;
    this.#options = options;
    this.#policy = compilePolicy(config.policy);
    this.audit = new Audit(options.logger);
    const inbound = config.policy.ingress.length === 0 ? 0 : CAPABILITIES.inbound;
    const objects = Object.keys(config.volumes).length === 0 ? 0 : CAPABILITIES.objects;
    this.session = new SessionClient({
      parent: config.parent,
      key,
      capabilities: CAPABILITIES.tcp | CAPABILITIES.udp | inbound | objects,
      agent: name,
      onState: (state) => this.#logState(state),
      onLost: (reason) => this.#lost(reason),
      onReset: (flowId) => this.#table.reset(flowId),
    });
    this.#disks = this.#createDisks();
  }

  /** Where the proxies listen; after `listen`. */
  get proxies(): BoundProxies {
    return this.#proxies;
  }

  /**
   * Binds everything, then begins to look for the parent. After a throw, nothing is left bound.
   * @throws PosternError ERR_LISTEN_FAILED, ERR_TRANSPORT_*
   */
  async start(): Promise<void> {
    try {
      await this.#bind();
    } catch (error) {
      await this.#unbind();
      throw error;
    }
    this.session.start();
  }

  /**
   * Attaches the volumes of the configuration, once the session is up within `timeoutMs`.
   * @throws PosternError ERR_SESSION_LOST, ERR_VOLUME_*, ERR_ANCHOR_*, ERR_STORE_*, ERR_NBD_*
   */
  async attachVolumes(timeoutMs: number): Promise<void> {
    if (Object.keys(this.#options.config.volumes).length === 0) return;
    await this.session.ready(timeoutMs);
    await this.#disks.attach();
  }

  /** Takes no new flows, gives those that live up to `drainMs` to end, and says goodbye. */
  async close(drainMs = DRAIN_TIMEOUT_MS): Promise<void> {
    this.#closing = true;
    this.audit.event('info', 'agent.stopping', 'agent stopping', { flows: this.#table.count });
    this.session.current?.send({ type: 'goaway', deadlineMs: drainMs });
    await this.#unbind();
    this.#names?.close();
    await this.#table.drained(drainMs);
    this.#table.abortAll();
    await this.#disks.close();
    await this.session.close();
  }

  report(): StatusReport {
    return buildReport({
      startedAt: this.#startedAt,
      parent: formatTransportAddress(this.#options.config.parent),
      session: this.session.state,
      listeners: this.#listeners,
      volumes: this.#disks.reports,
      table: this.#table,
      audit: this.audit,
      reapedCount: this.#options.reapedCount?.() ?? 0,
      names: this.#names?.report(),
    });
  }

  async #bind(): Promise<void> {
    const { config } = this.#options;
    const gate = this.#gate();
    const { socks5, http } = config.proxies;
    if (socks5 !== undefined) {
      const { server, closeClients } = createSocksServer({ gate, audit: this.audit });
      this.#proxies = { ...this.#proxies, socks5: await this.#bindProxy('socks5', server, socks5) };
      this.#closers.push(closeClients);
    }
    if (http !== undefined) {
      const server = createHttpProxy({ gate, audit: this.audit });
      this.#proxies = { ...this.#proxies, http: await this.#bindProxy('http', server, http) };
      this.#closers.push(() => server.closeIdleConnections());
    }
    await this.#bindNames(gate);
    if (config.listen !== undefined && config.policy.ingress.length > 0) await this.#bindInbound();
    if (config.metrics !== undefined) await this.#bindMetrics(config.metrics);
    const status = await serveStatus(config.statusSocket, {
      report: () => this.report(),
      carryOut: (order) => this.#disks.carryOut(order),
    });
    this.#closers.push(() => void status.close());
    this.#listeners['status'] = config.statusSocket;
    this.audit.event('info', 'agent.up', 'agent listening', { listeners: this.#listeners });
  }

  async #bindMetrics(at: LoopbackAddress): Promise<void> {
    const { createMetricsServer } = await import('./status/metrics.ts');
    const server = createMetricsServer(() => this.report());
    await this.#bindProxy('metrics', server, at);
    this.#closers.push(() => server.closeAllConnections());
  }

  #createDisks(): Disks {
    const { config, logger, environment = {} } = this.#options;
    const takeFlowId = (): number => this.#table.takeId();
    const relay = relayOverSession({ parent: config.parent, session: this.session, takeFlowId });
    return new Disks({ volumes: config.volumes, relay, audit: this.audit, logger, environment });
  }

  #gate(): Gate {
    const { config } = this.#options;
    const opener = new FlowOpener({
      parent: config.parent,
      session: this.session,
      table: this.#table,
      onOpen: (tunnel) => this.audit.flowOpened(tunnel),
      onDone: this.#onDone,
    });
    const policy = this.#policy;
    const clock = this.#options.clock ?? (() => Math.floor(Date.now() / 1000));
    if (config.resolvers.length > 0)
      this.#names = new NameService({ config, policy, opener, clock, audit: this.audit });
    const names = this.#names;
    const { resolver, leases } = names ?? {};
    const nameAt = (address: string): string | undefined => names?.nameAt(address);
    return new Gate({ policy, resolver, leases, opener, audit: this.audit, nameAt });
  }

  async #bindProxy(name: string, server: Server, at: LoopbackAddress): Promise<LoopbackAddress> {
    const bound = await listenLoopback(server, at);
    this.#closers.push(() => void server.close());
    this.#listeners[name] = formatLoopback(bound);
    return bound;
  }

  async #bindNames(gate: Gate): Promise<void> {
    const names = this.#names;
    if (names === undefined) return;
    this.#closers.push(() => names.unbind());
    const bound = await names.listen(gate);
    if (bound !== undefined) this.#listeners['dns'] = formatLoopback(bound);
  }

  async #bindInbound(): Promise<void> {
    const { listen } = this.#options.config;
    if (listen === undefined) return;
    const { session, audit } = this;
    const options = {
      listen,
      policy: this.#policy,
      session,
      table: this.#table,
      audit,
      onDone: this.#onDone,
    };
    const listener: Listener = await new InboundServer(options).listen();
    this.#closers.push(() => listener.close());
    this.#listeners['inbound'] = formatTransportAddress(listen);
  }

  async #unbind(): Promise<void> {
    for (const close of this.#closers.splice(0)) await close();
  }

  readonly #onDone = (tunnel: Tunnel, end: FlowEnd): void => {
    // A flow without an address never came about; whoever wanted it has said so.
    if (tunnel.labels.address !== undefined) this.audit.flowClosed(tunnel, end);
  };

  #lost(reason: PosternError): void {
    const flows = this.#table.count;
    if (!this.#closing)
      this.audit.event('warn', 'session.lost', `session lost: ${reason.message}`, { flows });
    this.#table.abortAll();
    this.#disks.sessionLost();
  }

  #logState(state: SessionState): void {
    if (state.phase === 'up') {
      const { version } = state;
      this.audit.event('info', 'session.up', 'session with the parent is up', { version });
    } else if (state.phase === 'draining') {
      const { deadlineMs } = state;
      this.audit.event('warn', 'session.draining', 'the parent stops; no new flows until it is back', {
        deadlineMs,
      });
    } else if (state.phase === 'waiting') {
      const suppressed = this.#retryLimiter.allow(state.code);
      if (suppressed === undefined) return;
      const advice = SESSION_ADVICE[state.code];
      const { code, retryMs } = state;
      const message = `no session with the parent: ${state.reason}${advice === undefined ? '' : ` (${advice})`}`;
      this.audit.event('warn', 'session.failed', message, { code, retryMs, suppressed });
    }
  }
}
