import { isPosternError, PosternError } from '../shared/errors.ts';

/** Something that listens, once it is open. */
export interface Listening {
  /** Where, as a person writes it; with the real port when the configuration asked for port 0. */
  readonly where: string;
  close(): Promise<void>;
}

/** A listener that the configuration asks for. Two with the same key are the same listener. */
export interface WantedListener {
  readonly key: string;
  open(): Promise<Listening>;
}

/** New listeners that are open already; exactly one of the two is called. */
export interface ListenerChange {
  /** Closes the listeners that are not wanted any more. */
  commit(): Promise<void>;
  /** Closes the new ones. */
  rollback(): Promise<void>;
}

/** What the parent listens on. It changes in two phases, so that a change that fails half-way changes nothing. */
export class ListenerSet {
  #open = new Map<string, Listening>();

  get(key: string): Listening | undefined {
    return this.#open.get(key);
  }

  /** Opens what is not open yet. @throws PosternError of the first failure with all of them in its text; then none is open */
  async prepare(wanted: readonly WantedListener[]): Promise<ListenerChange> {
    const added = new Map<string, Listening>();
    const missing = wanted.filter(({ key }) => !this.#open.has(key));
    const outcomes = await Promise.allSettled(
      missing.map(async ({ key, open }) => {
        added.set(key, await open());
      }),
    );
    const rollback = async (): Promise<void> => {
      await Promise.all([...added.values()].map((listening) => listening.close()));
    };
    const failures = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
    if (failures.length > 0) {
      await rollback();
      throw joined(failures);
    }
    return { commit: () => this.#replace(wanted, added), rollback };
  }

  async closeAll(except: (key: string) => boolean = () => false): Promise<void> {
    const closing = [...this.#open].filter(([key]) => !except(key));
    for (const [key] of closing) this.#open.delete(key);
    await Promise.all(closing.map(([, listening]) => listening.close()));
  }

  async #replace(wanted: readonly WantedListener[], added: ReadonlyMap<string, Listening>): Promise<void> {
    for (const [key, listening] of added) this.#open.set(key, listening);
    const keys = new Set(wanted.map(({ key }) => key));
    await this.closeAll((key) => keys.has(key));
  }
}

function joined(failures: readonly unknown[]): unknown {
  const unexpected = failures.find((failure) => !isPosternError(failure));
  const [first] = failures;
  if (unexpected !== undefined || !isPosternError(first)) return unexpected;
  const text = failures.map((failure) => (failure as Error).message).join('\n');
  return new PosternError(first.code, text, { cause: first });
}
