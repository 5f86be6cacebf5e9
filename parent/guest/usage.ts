import type { Quotas } from '../config/config.ts';
import { TokenBucket } from './rate.ts';

/** Which of a guest's quotas stands in the way; the label of a metric and the word in the log. */
export type QuotaName = 'flows' | 'dials' | 'rate' | 'inbound' | 'inbound-pending';

/** What a guest uses now, measured against what it may use. Counts outlive a change of the quotas. */
export class Usage {
  flows = 0;
  dials = 0;
  inbound = 0;
  inboundPending = 0;
  #quotas: Quotas;
  #newFlows: TokenBucket;
  #bytes: TokenBucket | undefined;

  constructor(quotas: Quotas) {
    this.#quotas = quotas;
    this.#newFlows = new TokenBucket(quotas.newFlowsPerSecond);
    this.#bytes = byteBucket(quotas);
  }

  /** For flows that are opened from now on. */
  setQuotas(quotas: Quotas): void {
    if (quotas.newFlowsPerSecond !== this.#quotas.newFlowsPerSecond) {
      this.#newFlows = new TokenBucket(quotas.newFlowsPerSecond);
    }
    if (quotas.bytesPerSecond !== this.#quotas.bytesPerSecond) this.#bytes = byteBucket(quotas);
    this.#quotas = quotas;
  }

  /** Shared by all flows of the guest; undefined when its bytes are not limited. */
  get limiter(): TokenBucket | undefined {
    return this.#bytes;
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

function byteBucket({ bytesPerSecond }: Quotas): TokenBucket | undefined {
  return bytesPerSecond === undefined ? undefined : new TokenBucket(bytesPerSecond);
}
