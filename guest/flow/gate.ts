import { isIPv6, type Socket } from 'node:net';
import { isPosternError, PosternError } from '../../shared/errors.ts';
import { formatAddress } from '../../shared/policy/address.ts';
import type { CompiledPolicy } from '../../shared/policy/compile.ts';
import { type Allowed, type Decision, decide } from '../../shared/policy/decide.ts';
import { parseHost } from '../../shared/policy/name.ts';
import { DENY_REASONS, type DenyReason, SNI_REASONS, type SniReason } from '../../shared/policy/reasons.ts';
import type { Destination, DnssecState } from '../../shared/policy/types.ts';
import type { Audit, RefusalRecord } from '../audit.ts';
import type { LeaseTable } from '../dns/leases.ts';
import { interleaveFamilies } from '../resolve/order.ts';
import type { NameResolver } from '../resolve/resolver.ts';
import type { FlowVia } from './flow-table.ts';
import type { FlowOpener } from './opener.ts';
import { judgeServerName } from './server-name.ts';
import type { Tunnel } from './tunnel.ts';

/** Longer than any name; what an application sends beyond it does not go to the log. */
const SHOWN_HOST_MAX_LENGTH = 260;

export interface Target {
  /** As the application wrote it: a name in any spelling, or an address. */
  readonly host: string;
  readonly port: number;
  readonly via: FlowVia;
  /** `tcp` unless it says otherwise. */
  readonly protocol?: 'tcp' | 'udp';
}

export interface Refusal {
  readonly reason: DenyReason | SniReason;
  /** For a person: what was asked for and why not. */
  readonly message: string;
}

export interface OpenFlow {
  readonly kind: 'open';
  readonly tunnel: Tunnel;
  /** The first bytes must be a TLS ClientHello for one of these names. */
  readonly serverNames?: readonly string[];
}

export type GateResult = OpenFlow | { readonly kind: 'denied'; readonly refusal: Refusal };

interface AllowedRoute {
  readonly kind: 'allow';
  readonly addresses: readonly string[];
  readonly rule: string;
  readonly name?: string;
  readonly dnssec?: DnssecState;
  readonly serverNames?: readonly string[];
}

type DeniedRoute = Pick<RefusalRecord, 'name' | 'address' | 'rule' | 'dnssec' | 'code'> & {
  readonly kind: 'deny';
  readonly reason: DenyReason;
  /** What the resolver knows of it. */
  readonly detail?: string;
};

type Route = AllowedRoute | DeniedRoute;

export interface GateOptions {
  readonly policy: CompiledPolicy;
  /** Undefined when no rule names a name. */
  readonly resolver: NameResolver | undefined;
  /** What names led to; undefined with the resolver. */
  readonly leases?: LeaseTable | undefined;
  readonly opener: FlowOpener;
  readonly audit: Audit;
  /** The name that an address of this machine stands for, where names are captured. */
  nameAt?(address: string): string | undefined;
}

/** Where every flow of the workload goes through: the policy, the resolver, the policy again, the parent. */
export class Gate {
  readonly #options: GateOptions;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /**
   * Opens a flow where the policy allows it. Refusals and failures are logged and counted here.
   * @throws PosternError ERR_RESOLVE_*, and what FlowOpener.open throws.
   */
  connect(target: Target, signal?: AbortSignal): Promise<GateResult> {
    return this.#counted(target, async () => {
      const route = await this.#route(target, signal);
      if (route.kind === 'deny') return { kind: 'denied', refusal: this.#refuse(target, route) };
      const { name, rule, dnssec, serverNames } = route;
      const labels = {
        via: target.via,
        protocol: 'tcp',
        port: target.port,
        rule,
        ...(name && { name }),
        ...(dnssec && { dnssec }),
      } as const;
      const tunnel = await this.#options.opener.open(route.addresses, labels, signal);
      return { kind: 'open', tunnel, ...(serverNames && { serverNames }) };
    });
  }

  /**
   * The addresses that datagrams for a target may go to; none where it is refused. Logged and counted as for flows. IPv4
   * first: a datagram that is lost on the way tells nobody, and more hosts lack IPv6 than IPv4.
   * @throws PosternError ERR_RESOLVE_*
   */
  routeDatagrams(target: Target, signal?: AbortSignal): Promise<readonly string[]> {
    return this.#counted(target, async () => {
      const route = await this.#route({ ...target, protocol: 'udp' }, signal);
      if (route.kind === 'allow')
        return route.addresses.toSorted((a, b) => Number(isIPv6(a)) - Number(isIPv6(b)));
      this.#refuse(target, route);
      return [];
    });
  }

  /**
   * A stream for datagrams; where each goes is `routeDatagrams`' to say. Failures are logged and counted here.
   * @throws what FlowOpener.associate throws
   */
  associate(via: FlowVia, signal?: AbortSignal): Promise<Tunnel> {
    const labels = { via, protocol: 'udp', port: 0 } as const;
    return this.#counted({ ...labels, host: '*' }, () => this.#options.opener.associate(labels, signal));
  }

  async #counted<T>(target: Target, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      if (!isPosternError(cause)) throw cause;
      const error = this.#orSessionLost(cause);
      if (error.code !== 'ERR_TRANSPORT_ABORTED')
        this.#options.audit.failed({ ...recordOf(target), reason: error.code }, error.message);
      throw error;
    }
  }

  #refuse(target: Target, { kind: _kind, detail, ...facts }: DeniedRoute): Refusal {
    const why = detail === undefined ? undefined : `refused: ${facts.reason}: ${detail}`;
    this.#options.audit.refused('flow.refused', { ...recordOf(target), ...facts }, why);
    return refusalOf(target, facts.reason, detail);
  }

  /** Without a parent no resolver answers either, and it is the parent that an application should hear of. */
  #orSessionLost(error: PosternError): PosternError {
    if (error.code !== 'ERR_RESOLVE_FAILED' || this.#options.opener.hasSession) return error;
    return new PosternError('ERR_SESSION_LOST', 'no session with the parent', { cause: error });
  }

  /**
   * The last question, once the application may send: are its first bytes a ClientHello for the right name, where the
   * rule wants that. The bytes stay in the socket.
   * @throws PosternError ERR_FLOW_DENIED, ERR_WIRE_TIMEOUT, ERR_TRANSPORT_CLOSED; the flow is ended then.
   */
  async admit(local: Socket, { tunnel, serverNames }: OpenFlow): Promise<void> {
    if (serverNames === undefined) return;
    try {
      const reason = await judgeServerName(local, serverNames);
      if (reason === undefined) return;
      const message = this.refuseServerName(tunnel, reason, serverNames);
      throw new PosternError('ERR_FLOW_DENIED', message);
    } catch (error) {
      tunnel.cancel();
      throw error;
    }
  }

  /** Counts and logs that a flow did not carry the TLS server name that its rule wants. Returns what to tell. */
  refuseServerName({ labels }: Tunnel, reason: SniReason, serverNames: readonly string[]): string {
    const message = `the rule wants TLS for ${serverNames.join(' or ')}: ${SNI_REASONS[reason]}`;
    const destination = labels.name ?? labels.address ?? '';
    this.#options.audit.refused('flow.refused', { ...labels, destination, reason }, message);
    return message;
  }

  async #route(target: Target, signal?: AbortSignal): Promise<Route> {
    const { host, port, protocol = 'tcp' } = target;
    const parsed = parseHost(host);
    if (parsed.kind === 'numeric') return { kind: 'deny', reason: 'numeric-spelling' };
    if (parsed.kind === 'invalid') return { kind: 'deny', reason: 'invalid-name' };
    if (parsed.kind === 'name') return this.#routeName(parsed.name, { port, protocol }, signal);
    const { policy, leases, nameAt } = this.#options;
    const address = formatAddress(parsed.address);
    const name = nameAt?.(address);
    if (name !== undefined) return this.#routeName(name, { port, protocol }, signal);
    const decision = decide(policy, { protocol, port, address }, leases);
    return decision.verdict === 'deny' ? routeDenied(decision) : routeAllowed([decision]);
  }

  /** A name off the list is not resolved: a question to a resolver would carry data out. */
  async #routeName(
    name: string,
    at: Pick<Destination, 'port' | 'protocol'>,
    signal?: AbortSignal,
  ): Promise<Route> {
    const { policy, resolver, leases } = this.#options;
    const first = decide(policy, { ...at, name });
    if (first.verdict === 'deny') return routeDenied(first);
    if (resolver === undefined) throw new PosternError('ERR_RESOLVE_FAILED', 'no resolvers are configured');
    const resolution = await resolver.resolve(name, signal === undefined ? {} : { signal });
    const { addresses, dnssec, chain, reason, code } = resolution;
    if (dnssec === 'bogus')
      return { ...routeDenied(first, 'dnssec-bogus'), dnssec, detail: reason, ...(code && { code }) };
    const decisions = addresses.map(({ address }) => decide(policy, { ...at, name, address, dnssec }));
    const allowed = decisions.filter((decision) => decision.verdict === 'allow');
    if (allowed.length > 0) {
      const ttlSeconds = Math.min(...addresses.map((entry) => entry.ttlSeconds));
      leases?.grant({ name, chain, addresses: addressesOf(allowed), ttlSeconds, dnssec });
      return { ...routeAllowed(allowed), dnssec };
    }
    const denied = decisions.find((decision) => decision.verdict === 'deny');
    if (denied === undefined) throw new PosternError('ERR_RESOLVE_NOT_FOUND', `${name} has no address`);
    const detail = denied.reason.startsWith('dnssec-') && reason !== '' ? { detail: reason } : {};
    return { ...routeDenied(denied), dnssec, ...detail };
  }
}

function routeDenied(decision: Decision, reason?: DenyReason): DeniedRoute {
  const { name, address, rule } = decision;
  const why = reason ?? (decision.verdict === 'deny' ? decision.reason : 'no-rule');
  return {
    kind: 'deny',
    reason: why,
    ...(name && { name }),
    ...(address && { address }),
    ...(rule && { rule }),
  };
}

function addressesOf(decisions: readonly Allowed[]): string[] {
  return decisions.flatMap(({ address }) => address ?? []);
}

/** What one address must keep to, all must: the parent chooses which of them it connects. */
function routeAllowed(decisions: readonly Allowed[]): AllowedRoute {
  const addresses = interleaveFamilies(addressesOf(decisions));
  const serverNames = [...new Set(decisions.flatMap((decision) => decision.serverNames ?? []))];
  const [{ rule, name } = { rule: '', name: undefined }] = decisions;
  const sni = serverNames.length > 0 ? { serverNames } : {};
  return { kind: 'allow', addresses, rule, ...(name && { name }), ...sni };
}

function recordOf({ host, port, via, protocol = 'tcp' }: Target): Omit<RefusalRecord, 'reason'> {
  return { via, protocol, destination: shown(host), port };
}

function refusalOf({ host, port }: Target, reason: DenyReason, detail?: string): Refusal {
  const why = `${DENY_REASONS[reason]} (${reason})${detail === undefined ? '' : `: ${detail}`}`;
  return { reason, message: `${shown(host)} port ${port} is refused: ${why}` };
}

/** Printable ASCII, bounded: it goes to logs and into answers. */
function shown(host: string): string {
  return host.slice(0, SHOWN_HOST_MAX_LENGTH).replace(/[^\x21-\x7e]/g, '?');
}
