import { setTimeout as sleep } from 'node:timers/promises';
import { DomainName } from '../../../guest/dns/name.ts';
import { TYPE } from '../../../guest/dns/types.ts';
import type { Validator } from '../../../guest/dns/validator.ts';
import type { Verdict } from '../../../guest/dns/verdict.ts';
import type { RolledZone } from './rolled-zone.ts';

const PAUSE_MS = 20;

/** Asks on and on, with the caches of before, and says what is not secure. */
export class Questions {
  readonly #validators: readonly Validator[];
  readonly #zones: readonly RolledZone[];
  readonly #of: Questions;
  asked = 0;
  step = 0;
  isOver = false;
  /** Zones whose verdicts are not looked at now. */
  exempt: readonly RolledZone[] = [];

  constructor(validators: readonly Validator[], zones: readonly RolledZone[], of?: Questions) {
    this.#zones = zones;
    this.#validators = validators;
    this.#of = of ?? this;
  }

  async goOn(): Promise<void> {
    for (let round = 0; !this.isOver; round += 1) {
      await this.once(round);
      await sleep(PAUSE_MS);
    }
  }

  /** Data known or not, from a wildcard, and a name that does not exist. */
  async once(round: number): Promise<void> {
    for (const zone of this.#zones) {
      for (const label of ['www', `x${round}.wild`, `none${round}`]) {
        const name = DomainName.parse(`${label}.${zone.name}`);
        await Promise.all(this.#validators.map((one) => this.#ask(one, name, zone)));
      }
    }
  }

  async #ask(validator: Validator, name: DomainName, zone: RolledZone): Promise<void> {
    // What is asked before the exemption ends may be answered after it.
    const before = this.#of.exempt;
    const verdict: Verdict = await validator.resolve(name, TYPE.A);
    this.#of.asked += 1;
    const isExempt = before.includes(zone) || this.#of.exempt.includes(zone);
    if (verdict.state === 'secure' || (isExempt && verdict.state === 'bogus')) return;
    const { state, reason } = verdict;
    process.stdout.write(
      `${JSON.stringify({ step: this.#of.step, name: name.toString(), state, reason })}\n`,
    );
  }
}
