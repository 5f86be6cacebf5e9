import type { Flow } from '../../shared/flow/flow.ts';
import type { Stream } from '../../shared/transport/transport.ts';
import { type GuestConfig, identityOf } from '../config/config.ts';
import { Guard } from '../egress/guard.ts';
import { DatagramCounts } from '../nat/counts.ts';
import type { Claims } from '../session/claims.ts';
import type { Session } from '../session/session.ts';
import { SessionSlot } from '../session/slot.ts';
import { Usage } from './usage.ts';

/** One guest of the configuration, as it is now: who it is, what it may do, what it uses. */
export class Guest {
  readonly name: string;
  readonly identity: string;
  readonly slot: SessionSlot;
  readonly usage: Usage;
  /** Streams whose proof is not checked yet, the oldest first. */
  readonly unproven = new Set<Stream>();
  /** Flows that carry data now, of both directions. */
  readonly flows = new Set<Flow>();
  /** Streams of kind `object` that are served now. */
  readonly objectStreams = new Set<Stream>();
  readonly datagrams = new DatagramCounts();
  session: Session | undefined;
  /** No longer in the configuration; what still ends of it is not counted. */
  retired = false;
  #config: GuestConfig;
  #guard: Guard;

  private constructor(name: string, config: GuestConfig, slot: SessionSlot) {
    this.name = name;
    this.identity = identityOf(config);
    this.slot = slot;
    this.usage = new Usage(config.quotas);
    this.#config = config;
    this.#guard = new Guard(config.egress);
  }

  static async open(name: string, config: GuestConfig, claims: Claims): Promise<Guest> {
    return new Guest(name, config, await SessionSlot.open(identityOf(config), claims));
  }

  get config(): GuestConfig {
    return this.#config;
  }

  get guard(): Guard {
    return this.#guard;
  }

  /** Holds for flows that are opened from now on. The identity must be the same. */
  reconfigure(config: GuestConfig): void {
    this.#config = config;
    this.#guard = new Guard(config.egress);
    this.usage.setQuotas(config.quotas);
  }

  /** Forgets the session key; a live session is ended first. @throws PosternError ERR_SESSION_STATE */
  async release(): Promise<void> {
    await this.slot.release(() => this.session?.end('released by the operator'));
  }
}
