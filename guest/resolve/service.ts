import type { CompiledPolicy } from '../../shared/policy/compile.ts';
import type { Audit } from '../audit.ts';
import { captureNames, type NameCapture } from '../capture/names.ts';
import { namedPorts } from '../capture/ports.ts';
import type { GuestConfig } from '../config/load.ts';
import { TrustAnchors } from '../dns/anchors.ts';
import { LeaseTable } from '../dns/leases.ts';
import { DomainName } from '../dns/name.ts';
import { ValidatingResolver } from '../dns/name-resolver.ts';
import { namePolicy } from '../dns/serve/name-policy.ts';
import { Responder } from '../dns/serve/responder.ts';
import { DnsServer } from '../dns/serve/server.ts';
import { typeName } from '../dns/types.ts';
import { type FlowCarrier, flowCarrier } from '../dns/upstream/flow.ts';
import { resolverFor } from '../dns/upstream/resolvers.ts';
import type { UpstreamResolver } from '../dns/upstream/upstream.ts';
import { Validator } from '../dns/validator.ts';
import type { Gate } from '../flow/gate.ts';
import type { FlowOpener } from '../flow/opener.ts';
import type { LoopbackAddress } from '../proxy/loopback.ts';
import { type NamesReport, REPORT_LEASES_MAX } from './report.ts';
import type { NameResolver } from './resolver.ts';

export interface NameServiceOptions {
  readonly config: GuestConfig;
  readonly policy: CompiledPolicy;
  readonly opener: FlowOpener;
  /** Epoch seconds, from a clock that the guest trusts: signatures are judged by it. */
  readonly clock: () => number;
  readonly audit: Audit;
}

/** Everything of the agent that has to do with names: one validator with its cache, one table of leases. */
export class NameService {
  readonly resolver: NameResolver;
  readonly leases: LeaseTable;
  readonly #validator: Validator;
  readonly #carrier: FlowCarrier;
  readonly #resolvers: readonly UpstreamResolver[];
  readonly #options: NameServiceOptions;
  readonly #capture: NameCapture | undefined;
  readonly #closers: (() => void)[] = [];
  #responder: Responder | undefined;

  constructor(options: NameServiceOptions) {
    const { config, opener, clock, policy } = options;
    this.#options = options;
    this.#capture = config.capture === 'names' ? captureNames(policy) : undefined;
    const negative = config.negativeTrustAnchors.map((name) => DomainName.parse(name));
    this.#carrier = flowCarrier(opener, config.resolverCertificates);
    this.#resolvers = config.resolvers.map((server) => resolverFor(server, this.#carrier));
    this.#validator = new Validator({
      resolvers: this.#resolvers,
      anchors: new TrustAnchors(config.trustAnchors, negative),
      clock,
      monotonic: () => performance.now() / 1000,
    });
    this.resolver = new ValidatingResolver(this.#validator);
    const { floorSeconds, graceSeconds } = config.leases;
    this.leases = new LeaseTable({
      ...(floorSeconds === undefined ? {} : { floorSeconds }),
      ...(graceSeconds === undefined ? {} : { graceSeconds }),
    });
  }

  /** The name that an address of this machine stands for. */
  nameAt(address: string): string | undefined {
    return this.#capture?.standIns.nameAt(address);
  }

  /**
   * Serves DNS where the configuration says so, and takes the flows of names there where it captures them. Resolves
   * with the address of the DNS server.
   * @throws PosternError ERR_LISTEN_FAILED
   */
  async listen(gate: Gate): Promise<LoopbackAddress | undefined> {
    const { config, policy, audit } = this.#options;
    if (config.dns === undefined) return undefined;
    const capture = this.#capture;
    if (capture !== undefined) {
      capture.attach(gate);
      this.#closers.push(() => capture.close());
      await capture.standIns.probe(namedPorts(policy));
    }
    this.#responder = new Responder({
      validator: this.#validator,
      policy: namePolicy(policy),
      leases: this.leases,
      standIns: capture?.standIns,
      onRefused: ({ name, type }, { kind, reason, code, dnssec }) => {
        const record = {
          name: name.toString(),
          type: typeName(type),
          ...(code && { code }),
          ...(dnssec && { dnssec }),
        };
        audit.question(`name.${kind}`, record, `no answer for ${record.name} ${record.type}: ${reason}`);
      },
    });
    const server = new DnsServer(this.#responder);
    const { host: address, port } = config.dns.listen;
    const bound = await server.listen({ address, port });
    this.#closers.push(() => server.close());
    return { host: bound.address, port: bound.port };
  }

  /** Takes no questions and no flows any more. */
  unbind(): void {
    for (const close of this.#closers.splice(0)) close();
  }

  report(): NamesReport {
    const live = this.leases.list();
    return {
      resolvers: this.#resolvers.map(({ name }) => name),
      cache: this.#validator.cache,
      ...(this.#responder && { questions: { ...this.#responder.counters } }),
      ...(this.#capture && {
        standIns: {
          count: this.#capture.standIns.count,
          listenerCount: this.#capture.standIns.listenerCount,
        },
      }),
      leases: { count: live.length, shown: live.slice(0, REPORT_LEASES_MAX) },
    };
  }

  /** Ends the connections to the resolvers. */
  close(): void {
    this.#carrier.close();
  }
}
