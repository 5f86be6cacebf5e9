import type { CompiledPolicy } from '../../shared/policy/compile.ts';
import type { GuestConfig } from '../config/load.ts';
import { TrustAnchors } from '../dns/anchors.ts';
import { LeaseTable } from '../dns/leases.ts';
import { DomainName } from '../dns/name.ts';
import { ValidatingResolver } from '../dns/name-resolver.ts';
import { type FlowCarrier, flowCarrier } from '../dns/upstream/flow.ts';
import { resolverFor } from '../dns/upstream/resolvers.ts';
import type { UpstreamResolver } from '../dns/upstream/upstream.ts';
import { Validator } from '../dns/validator.ts';
import type { FlowOpener } from '../flow/opener.ts';
import { type NamesReport, REPORT_LEASES_MAX } from './report.ts';
import type { NameResolver } from './resolver.ts';

export interface NameServiceOptions {
  readonly config: GuestConfig;
  readonly policy: CompiledPolicy;
  readonly opener: FlowOpener;
  /** Epoch seconds, from a clock that the guest trusts: signatures are judged by it. */
  readonly clock: () => number;
}

/** Everything of the agent that has to do with names: one validator with its cache, one table of leases. */
export class NameService {
  readonly resolver: NameResolver;
  readonly leases: LeaseTable;
  readonly #validator: Validator;
  readonly #carrier: FlowCarrier;
  readonly #resolvers: readonly UpstreamResolver[];

  constructor({ config, opener, clock }: NameServiceOptions) {
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

  report(): NamesReport {
    const live = this.leases.list();
    return {
      resolvers: this.#resolvers.map(({ name }) => name),
      cache: this.#validator.cache,
      leases: { count: live.length, shown: live.slice(0, REPORT_LEASES_MAX) },
    };
  }

  /** Ends the connections to the resolvers. */
  close(): void {
    this.#carrier.close();
  }
}
