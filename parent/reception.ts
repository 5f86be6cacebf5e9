import type { Socket } from 'node:net';
import { PosternError } from '../shared/errors.ts';
import type { StartFlow } from '../shared/flow/flow.ts';
import type { Logger } from '../shared/log.ts';
import type { Stream } from '../shared/transport/transport.ts';
import type { ParentMetrics } from './admin/metrics.ts';
import { type Audit, UNKNOWN_GUEST } from './audit.ts';
import { openEgress } from './egress/open.ts';
import { Gate } from './gate/gate.ts';
import type { Guest } from './guest/guest.ts';
import { openInbound } from './inbound/open.ts';
import { openAssociation } from './nat/open.ts';
import { openObjects } from './objects/open.ts';
import type { ObjectRelay } from './objects/relay.ts';
import type { Routes } from './routes.ts';
import { register } from './session/register.ts';
import type { Acceptors } from './wanted.ts';

export interface ReceptionOptions {
  readonly log: Logger;
  readonly audit: Audit;
  readonly metrics: ParentMetrics;
  readonly startFlow: StartFlow;
  /** Those in force now. */
  routes(): Routes;
  relay(): ObjectRelay;
  /** Whether no new flows are taken. */
  draining(): boolean;
}

/** Takes what the listeners accept to the guest that it belongs to now, or turns it away. */
export class Reception implements Acceptors {
  readonly #options: ReceptionOptions;
  readonly #gate: Gate;

  constructor(options: ReceptionOptions) {
    const { audit, log, metrics, startFlow } = options;
    const egress = { startFlow, log, audit, observer: metrics, draining: () => options.draining() };
    const datagrams = { log, audit, observer: metrics, draining: () => options.draining() };
    const objects = { audit, relay: () => options.relay(), draining: () => options.draining() };
    this.#options = options;
    this.#gate = new Gate({
      audit,
      onRefused: (guest, reason) => metrics.onRefused(guest, reason),
      onControl: (opened, header) => register(opened, header, { log, audit }),
      onProven: {
        tcp: (opened, session) => openEgress(opened, session, egress),
        udp: (opened, session) => openAssociation(opened, session, datagrams),
        object: (opened, session) => openObjects(opened, session, objects),
      },
    });
  }

  acceptByCid(stream: Stream): void {
    const { peer } = stream;
    const guest = peer.kind === 'vsock' ? this.#options.routes().byCid.get(peer.cid) : undefined;
    this.#accept(guest, stream, peer.kind === 'vsock' ? `CID ${peer.cid}` : peer.kind);
  }

  acceptBySocket(key: string, stream: Stream): void {
    this.#accept(this.#options.routes().bySocket.get(key), stream, key);
  }

  acceptClient(key: string, client: Socket): void {
    const route = this.#options.routes().forwards.get(key);
    if (route === undefined) {
      // Accepted while a reload was under way that dropped the forward.
      client.on('error', () => {}).resetAndDestroy();
      return;
    }
    const { startFlow, log, audit, metrics } = this.#options;
    void openInbound(route.guest, route.forward.to, client, { startFlow, log, audit, observer: metrics });
  }

  acceptFailed(key: string, error: Error): void {
    const { audit, metrics, routes } = this.#options;
    metrics.onAcceptError();
    const guest = routes().forwards.get(key)?.guest.name ?? UNKNOWN_GUEST;
    audit.say(guest, `accept ${key}`, 'the system could not hand over a client', {
      event: 'accept.failed',
      key,
      error: error.message,
    });
  }

  #accept(guest: Guest | undefined, stream: Stream, who: string): void {
    if (guest !== undefined) {
      void this.#gate.admit(guest, stream);
      return;
    }
    stream.on('error', () => {});
    const error = new PosternError('ERR_SESSION_UNKNOWN_GUEST', `${who} is no guest of the configuration`);
    this.#gate.refuse(UNKNOWN_GUEST, stream, error, who);
  }
}
