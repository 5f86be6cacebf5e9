import { createServer, type Server, type ServerResponse } from 'node:http';
import { Gauge, Registry } from 'prom-client';
import type { VolumeStats } from '../volume/stats.ts';
import type { StatusReport } from './report.ts';

const PREFIX = 'postern_guest_';
/** A scraper, a prober and a person. */
const CONNECTIONS_MAX = 16;
/** Requests here have no body and few headers. */
const HEADERS_MAX_BYTES = 8 * 1024;
const REQUEST_TIMEOUT_MS = 5_000;

/** What one line of the report becomes; undefined where the agent has no such part. */
type Reading = (report: StatusReport) => number | undefined;

/** Gauges throughout: the agent counts by itself, and these only show where the counts stand. */
const READINGS: Readonly<Record<string, { readonly help: string; readonly read: Reading }>> = {
  session_up: {
    help: '1 while the session with the parent is up',
    read: ({ session }) => Number(session.phase === 'up'),
  },
  flows: { help: 'Flows that live', read: ({ flows }) => flows.count },
  flows_opened: { help: 'Flows opened since the start', read: ({ totals }) => totals.opened },
  flows_failed: {
    help: 'Flows that the policy allowed and that failed',
    read: ({ totals }) => totals.failed,
  },
  flows_refused: { help: 'Flows that the policy refused', read: ({ totals }) => totals.refused },
  sent_bytes: { help: 'Payload of closed flows, to the parent', read: ({ totals }) => totals.sentBytes },
  received_bytes: {
    help: 'Payload of closed flows, from the parent',
    read: ({ totals }) => totals.receivedBytes,
  },
  leases: { help: 'Leases that hold', read: ({ names }) => names?.leases.count },
  captured_names: { help: 'Names with an address of their own', read: ({ names }) => names?.standIns?.count },
  dns_cache_answers: { help: 'Validated answers kept', read: ({ names }) => names?.cache.count },
  dns_cache_bytes: { help: 'What they take', read: ({ names }) => names?.cache.sizeBytes },
  dns_cache_hits: { help: 'Questions answered from the cache', read: ({ names }) => names?.cache.hits },
  dns_cache_misses: { help: 'Questions that were walked for', read: ({ names }) => names?.cache.misses },
  dns_answered: {
    help: 'Questions of applications, answered',
    read: ({ names }) => names?.questions?.answered,
  },
  dns_refused: { help: 'and refused by the policy', read: ({ names }) => names?.questions?.refused },
  dns_failed: { help: 'and failed', read: ({ names }) => names?.questions?.failed },
};

/** Of each volume, since it was attached. */
const VOLUME_STATS: Readonly<Record<keyof VolumeStats, string>> = {
  commits: 'Commits',
  spills: 'Segments written ahead of a flush',
  checkpoints: 'Checkpoints of the index',
  repackedSegments: 'Sparse segments that were emptied',
  deletedObjects: 'Dead objects that were deleted',
  puts: 'Objects written',
  putBytes: 'Bytes of objects written',
  gets: 'Reads of the store',
  getBytes: 'Bytes read from the store',
  unsettledBytes: 'Bytes in memory that are dirty or on their way to the store',
  anchoredSeq: 'The commit that the anchor holds',
};

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Prometheus text of one report. Labels: the reason codes, which are a closed set, and the volumes' names. */
export function metricsOf(report: StatusReport): Promise<string> {
  const registry = new Registry();
  const gauge = (name: string, help: string, ...labelNames: string[]): Gauge =>
    new Gauge({ name: PREFIX + name, help, labelNames, registers: [registry] });
  for (const [name, { help, read }] of Object.entries(READINGS)) {
    const value = read(report);
    if (value !== undefined) gauge(name, help).set(value);
  }
  const refusals = gauge('refusals', 'Refusals and failures by reason code', 'reason');
  for (const [reason, count] of Object.entries(report.refusals)) refusals.set({ reason }, count);
  const volumes = gauge('volume_serving', '1 while the volume is served', 'volume');
  const bytes = gauge('volume_bytes', 'Size of the volume', 'volume');
  const stats = Object.entries(VOLUME_STATS).map(([name, help]) => ({
    name: name as keyof VolumeStats,
    shown: gauge(`volume_${snakeCase(name)}`, help, 'volume'),
  }));
  for (const { name: volume, state, sizeBytes, stats: found } of report.volumes) {
    volumes.set({ volume }, Number(state === 'serving'));
    bytes.set({ volume }, sizeBytes);
    for (const { name, shown } of stats) shown.set({ volume }, found[name]);
  }
  return registry.metrics();
}

/** Answers `/metrics`, `/healthz` and `/readyz`. Whoever is in the guest can read it: there is nothing secret in it. */
export function createMetricsServer(report: () => StatusReport): Server {
  const server = createServer(
    {
      maxHeaderSize: HEADERS_MAX_BYTES,
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: REQUEST_TIMEOUT_MS,
    },
    (request, response) => {
      request.resume();
      if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 405, 'only GET\n');
      void serve(request.url?.split('?', 1)[0] ?? '', response, report);
    },
  );
  server.maxConnections = CONNECTIONS_MAX;
  return server;
}

async function serve(path: string, response: ServerResponse, report: () => StatusReport): Promise<void> {
  if (path === '/healthz') return answer(response, 200, 'ok\n');
  if (path === '/readyz') {
    const { phase } = report().session;
    return answer(
      response,
      phase === 'up' ? 200 : 503,
      phase === 'up' ? 'ready\n' : `the session is ${phase}\n`,
    );
  }
  if (path === '/metrics') {
    return answer(response, 200, await metricsOf(report()), 'text/plain; version=0.0.4; charset=utf-8');
  }
  answer(response, 404, 'paths: /metrics, /healthz, /readyz\n');
}

function answer(
  response: ServerResponse,
  status: number,
  text: string,
  contentType = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, { 'content-type': contentType }).end(text);
}
