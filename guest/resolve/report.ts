import type { LiveLease } from '../dns/leases.ts';
import type { QuestionCounters } from '../dns/serve/responder.ts';
import type { CacheCounters } from '../dns/validator.ts';

/** Leases that one report lists; the count tells how many there are. */
export const REPORT_LEASES_MAX = 200;

/** What the agent knows of names, for `postern guest status`. */
export interface NamesReport {
  /** Those of the configuration, in the order in which they are asked. */
  readonly resolvers: readonly string[];
  readonly cache: CacheCounters;
  /** Of applications, where there is a DNS server for them. */
  readonly questions?: QuestionCounters;
  /** Where names are captured. */
  readonly standIns?: { readonly count: number; readonly listenerCount: number };
  readonly leases: { readonly count: number; readonly shown: readonly LiveLease[] };
}

export function formatNames(report: NamesReport | undefined): string[] {
  if (report === undefined) return [];
  const { resolvers, cache, questions, standIns, leases } = report;
  const kilobytes = Math.ceil(cache.sizeBytes / 1024);
  return [
    `resolvers  ${resolvers.join(', ')}`,
    `cache      ${cache.count} answers, ${kilobytes} KiB, ${cache.hits} hits, ${cache.misses} misses`,
    ...(questions === undefined
      ? []
      : [
          `questions  ${questions.answered} answered, ${questions.refused} refused, ${questions.failed} failed`,
        ]),
    ...(standIns === undefined
      ? []
      : [`captured   ${standIns.count} names, ${standIns.listenerCount} listeners`]),
    `leases     ${leases.count}`,
    ...leases.shown.map(
      ({ name, address, dnssec, expiresInSeconds }) =>
        `  ${name} is ${address}, ${dnssec}, for ${Math.ceil(expiresInSeconds)} s`,
    ),
  ];
}
