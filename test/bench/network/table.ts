/** What every ratio is to. */
const REFERENCE = 'socat -b 262144';

/** Samples by the name of the setup, printed as medians and ratios. */
export class Table {
  readonly #title: string;
  readonly #unit: string;
  readonly #samples = new Map<string, number[]>();

  constructor(title: string, unit: string) {
    this.#title = title;
    this.#unit = unit;
  }

  add(name: string, value: number): void {
    const samples = this.#samples.get(name) ?? [];
    samples.push(value);
    this.#samples.set(name, samples);
  }

  print(): void {
    const reference = median(this.#samples.get(REFERENCE) ?? []);
    print(`${this.#title} (${this.#unit}, medians; ratio to ${REFERENCE})`);
    for (const [name, samples] of this.#samples) {
      const value = median(samples);
      const range = `${number(Math.min(...samples))} to ${number(Math.max(...samples))}`;
      print(
        `  ${name.padEnd(16)} ${number(value).padStart(8)}  x${(value / reference).toFixed(2)}  (${range})`,
      );
    }
  }
}

function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function number(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
