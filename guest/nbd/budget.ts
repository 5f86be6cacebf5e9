import type { NbdLimits } from './limits.ts';

/** One connection's part in a budget. The budget alone changes it. */
export interface Account {
  heldBytes: number;
  /** What the request holds that waits, while one does. */
  waitingBytes: number;
  /** The bytes that were waited for are held now. */
  readonly granted: () => void;
}

/**
 * The payload bytes that all connections of a server hold. Of what a connection holds, the first `ownBytes` are its
 * own: they are there for it whatever the others do. What it holds above them comes out of the shared `inflightBytes`,
 * so the sum is never more than `inflightBytes` and `ownBytes` for each connection. Only where `inflightBytes` is less
 * than one request is that request let in alone.
 *
 * Shared bytes are given in the order in which they were asked for: while somebody waits, nobody takes of them past
 * the queue, or a large request would wait for as long as small ones come.
 */
export class PayloadBudget {
  readonly #limits: Pick<NbdLimits, 'inflightBytes' | 'ownBytes'>;
  readonly #queue = new Set<Account>();
  #heldBytes = 0;
  #sharedBytes = 0;

  constructor(limits: Pick<NbdLimits, 'inflightBytes' | 'ownBytes'>) {
    this.#limits = limits;
  }

  /** An account has at most one request waiting; `granted` may be called within any call of the budget's methods. */
  open(granted: () => void): Account {
    return { heldBytes: 0, waitingBytes: 0, granted };
  }

  /** Held by all accounts together. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** True: the bytes are held. False: `granted` will say when they are, unless `leave` is called before. */
  take(account: Account, bytes: number): boolean {
    if (this.#fits(account, bytes, this.#queue.size === 0)) {
      this.#change(account, bytes);
      return true;
    }
    account.waitingBytes = bytes;
    this.#queue.add(account);
    return false;
  }

  /** Gives bytes back that the account holds. */
  give(account: Account, bytes: number): void {
    if (bytes > account.heldBytes) throw new Error(`${bytes} bytes given back of ${account.heldBytes}`);
    this.#change(account, -bytes);
    this.#grant();
  }

  /** The account's request waits no longer, if one did. What it holds it keeps. */
  leave(account: Account): void {
    if (this.#queue.delete(account)) this.#grant();
  }

  #grant(): void {
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      this.#queue.delete(next);
      this.#change(next, next.waitingBytes);
      // It may take, give and leave at once: nothing is under way here meanwhile.
      next.granted();
    }
  }

  #next(): Account | undefined {
    let isFirst = true;
    for (const account of this.#queue) {
      if (this.#fits(account, account.waitingBytes, isFirst)) return account;
      isFirst = false;
    }
    return undefined;
  }

  #fits({ heldBytes }: Account, bytes: number, isItsTurn: boolean): boolean {
    const shared = this.#sharedOf(heldBytes + bytes) - this.#sharedOf(heldBytes);
    if (shared === 0) return true;
    if (!isItsTurn) return false;
    return this.#sharedBytes === 0 || this.#sharedBytes + shared <= this.#limits.inflightBytes;
  }

  #change(account: Account, bytes: number): void {
    const before = this.#sharedOf(account.heldBytes);
    account.heldBytes += bytes;
    this.#heldBytes += bytes;
    this.#sharedBytes += this.#sharedOf(account.heldBytes) - before;
  }

  #sharedOf(heldBytes: number): number {
    return Math.max(0, heldBytes - this.#limits.ownBytes);
  }
}
