import type { Quotas } from '../config/config.ts';
import { TokenBucket } from './rate.ts';

/** Which of a guest's quotas stands in the way; the label of a metric and the word in the log. */
export type QuotaName = 'flows' | 'dials' | 'rate' | 'inbound' | 'inbound-pending' | 'associations';

/** What a guest uses now, measured against what it may use. Counts outlive a change of the quotas. */
export class Usage {
  flows = 0;
  dials = 0;
  inbound = 0;
  inboundPending = 0;
  associations = 0;
  #quotas: Quotas;
  #newFlows: TokenBucket;
  #bytes: TokenBucket | undefined;
  #datagrams: TokenBucket;

  constructor(quotas: Quotas) {
    this.#quotas = quotas;
    this.#newFlows = new TokenBucket(quotas.newFlowsPerSecond);
    this.#bytes = byteBucket(quotas);
    this.#datagrams = datagramBucket(quotas);
  }

  /** For flows that are opened from now on. */
  setQuotas(quotas: Quotas): void {
    if (quotas.newFlowsPerSecond !== this.#quotas.newFlowsPerSecond) {
      this.#newFlows = new TokenBucket(quotas.newFlowsPerSecond);
    }
    if (quotas.bytesPerSecond !== this.#quotas.bytesPerSecond) this.#bytes = byteBucket(quotas);
    if (quotas.datagramsPerSecond !== this.#quotas.datagramsPerSecond) {
      this.#datagrams = datagramBucket(quotas);
    }
    this.#quotas = quotas;
  }

  /** Shared by all flows of the guest; undefined when its bytes are not limited. */
  get limiter(): TokenBucket | undefined {
    return this.#bytes;
  }

  /** Shared by all associations of the guest, both directions together. */
  get datagrams(): TokenBucket {
    return this.#datagrams;
  }

  /** Counts a new association, or names the quota that forbids it. */
  beginAssociation(): QuotaName | undefined {
    if (this.associations >= this.#quotas.associations) return 'associations';
    if (!this.#newFlows.tryTake()) return 'rate';
    this.associations += 1;
    return undefined;
  }

  /** Counts a new egress flow that dials, or names the quota that forbids it. */
  beginEgress(): QuotaName | undefined {
    if (this.flows >= this.#quotas.flows) return 'flows';
    if (this.dials >= this.#quotas.dialsInFlight) return 'dials';
    if (!this.#newFlows.tryTake()) return 'rate';
    this.flows += 1;
    this.dials += 1;
    return undefined;
  }

  /** Counts a new inbound flow that waits for the guest, or names the quota that forbids it. */
  beginInbound(): QuotaName | undefined {
    if (this.inbound >= this.#quotas.inboundFlows) return 'inbound';
    if (this.inboundPending >= this.#quotas.inboundPending) return 'inbound-pending';
    if (!this.#newFlows.tryTake()) return 'rate';
    this.inbound += 1;
    this.inboundPending += 1;
    return undefined;
  }
}

/** A tenth of a second's worth may come at once: the other guests wait for that long at most. */
function datagramBucket({ datagramsPerSecond }: Quotas): TokenBucket {
  return new TokenBucket(datagramsPerSecond, Math.max(1, datagramsPerSecond / 10));
}

function byteBucket({ bytesPerSecond }: Quotas): TokenBucket | undefined {
  return bytesPerSecond === undefined ? undefined : new TokenBucket(bytesPerSecond);
}
