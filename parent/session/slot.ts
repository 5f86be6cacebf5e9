import { timingSafeEqual } from 'node:crypto';
import { isPosternError, PosternError } from '../../shared/errors.ts';
import { type Claims, hashKey } from './claims.ts';

/**
 * The one session that a guest may have.
 * vacant: none is live; `keyHash` says whose it is, undefined that nobody registered yet.
 * busy: the claim is being read or written. live: as it says.
 * unusable: what is remembered cannot be read, so nobody can be told from an impostor; each claim tries again.
 */
export type SlotState =
  | { readonly kind: 'vacant'; readonly keyHash: Buffer | undefined }
  | { readonly kind: 'busy' }
  | { readonly kind: 'live'; readonly keyHash: Buffer }
  | { readonly kind: 'unusable'; readonly error: PosternError };

/**
 * Decides who may register as a guest. Every process in a guest can dial the parent, so the first key wins for as
 * long as the guest is up: later registrations need the same key and no live session.
 */
export class SessionSlot {
  readonly #identity: string;
  readonly #claims: Claims;
  #state: SlotState = { kind: 'vacant', keyHash: undefined };
  /** Settled unless the claim is being read or written; a release waits for it. */
  #settled: Promise<void> = Promise.resolve();

  private constructor(identity: string, claims: Claims) {
    this.#identity = identity;
    this.#claims = claims;
  }

  /** Never throws for a claim that cannot be read: the slot is then `unusable`. */
  static async open(identity: string, claims: Claims): Promise<SessionSlot> {
    const slot = new SessionSlot(identity, claims);
    try {
      slot.#state = { kind: 'vacant', keyHash: await claims.recall(identity) };
    } catch (error) {
      if (!isPosternError(error)) throw error;
      slot.#state = { kind: 'unusable', error };
    }
    return slot;
  }

  get state(): SlotState {
    return this.#state;
  }

  /** Whether a session of this very key is live. */
  isHeldBy(key: Buffer): boolean {
    return this.#state.kind === 'live' && timingSafeEqual(this.#state.keyHash, hashKey(key));
  }

  /**
   * Takes the slot for the holder of `key`; it is live when this resolves, until `vacate`.
   * @throws PosternError ERR_SESSION_TAKEN, ERR_SESSION_STATE
   */
  async claim(key: Buffer): Promise<void> {
    if (this.#state.kind === 'unusable')
      await this.#busy(async () => {
        return { kind: 'vacant', keyHash: await this.#claims.recall(this.#identity) };
      });
    const state = this.#state;
    if (state.kind !== 'vacant') throw taken('a session of this guest is live');
    const keyHash = hashKey(key);
    if (state.keyHash === undefined) {
      await this.#busy(async () => {
        await this.#claims.remember(this.#identity, keyHash);
        return { kind: 'live', keyHash };
      });
      return;
    }
    if (!timingSafeEqual(state.keyHash, keyHash)) {
      throw taken('another key was registered for this guest; if it was rebooted, release it');
    }
    this.#state = { kind: 'live', keyHash };
  }

  /** The live session ended; its key's holder alone may come back. */
  vacate(): void {
    if (this.#state.kind === 'live') this.#state = { kind: 'vacant', keyHash: this.#state.keyHash };
  }

  /**
   * Forgets the key: the next to register is taken for the guest. `endLive` ends a session that is live, at once.
   * @throws PosternError ERR_SESSION_STATE
   */
  async release(endLive: () => void): Promise<void> {
    await this.#settled;
    if (this.#state.kind === 'live') endLive();
    await this.#busy(async () => {
      await this.#claims.forget(this.#identity);
      return { kind: 'vacant', keyHash: undefined };
    });
  }

  /** Keeps everybody else out while a claim is read or written; `work` gives the state after it. */
  async #busy(work: () => Promise<SlotState>): Promise<void> {
    this.#state = { kind: 'busy' };
    const outcome = work();
    this.#settled = outcome.then(
      () => {},
      () => {},
    );
    try {
      this.#state = await outcome;
    } catch (error) {
      // Written or not is unknown now, and whoever registers next would be believed: so nobody is, until it is read.
      if (isPosternError(error)) this.#state = { kind: 'unusable', error };
      throw error;
    }
  }
}

function taken(detail: string): PosternError {
  return new PosternError('ERR_SESSION_TAKEN', detail);
}
