import * as v from 'valibot';

/** Reports a mistake in the value at hand, or in its list entry `at`. */
export type Report = (expected: string, at?: number) => void;

/**
 * A schema that reads one field whole: checks and turns it into its one spelling at once, and reports every mistake
 * in the grammar's own words.
 * @param expected what the field wants to be, for when it is missing
 */
export function field<T>(expected: string, read: (value: unknown, report: Report) => T) {
  return v.pipe(
    v.unknown(),
    v.rawTransform<unknown, T>(({ dataset, addIssue, NEVER }) => {
      let failed = false;
      const output = read(dataset.value, (message, at) => {
        failed = true;
        addIssue(issueInfo(dataset.value, message, at));
      });
      return failed ? NEVER : output;
    }),
    v.description(expected),
  );
}

function issueInfo(value: unknown, message: string, at: number | undefined) {
  if (at === undefined || !Array.isArray(value)) return { message, input: value };
  const list: unknown[] = value;
  const item = { type: 'array', origin: 'value', input: list, key: at, value: list[at] } as const;
  return { message, input: list[at], path: [item] satisfies [v.IssuePathItem] };
}

/** An entry with its place in the list, undefined where the entry stands alone. */
export interface Read<T> {
  readonly value: T;
  readonly at: number | undefined;
}

/** Reads one entry or a list of one or more; entries that `one` refuses (undefined) are reported with `expected`. */
export function readList<T>(
  value: unknown,
  expected: string,
  report: Report,
  one: (entry: unknown, complain: (expected: string) => void) => T | undefined,
): Read<T>[] {
  const found: Read<T>[] = [];
  const read = (entry: unknown, at?: number): void => {
    let said = false;
    const result = one(entry, (message) => {
      said = true;
      report(message, at);
    });
    if (result !== undefined) found.push({ value: result, at });
    else if (!said) report(expected, at);
  };
  if (!Array.isArray(value)) read(value);
  else if (value.length === 0) report(`${expected}, at least one`);
  else for (const [index, entry] of value.entries()) read(entry, index);
  return found;
}

/** What has a spelling of its own. */
export interface Keyed<T> {
  readonly key: string;
  readonly entry: T;
}

/** The entries sorted by key; one that stands twice is reported with the place of the first. */
export function distinct<T>(entries: readonly Read<Keyed<T>>[], report: Report): T[] {
  const first = new Map<string, Read<Keyed<T>>>();
  for (const read of entries) {
    const { key } = read.value;
    const earlier = first.get(key);
    if (earlier === undefined) first.set(key, read);
    else report(`no entry twice: ${key} stands in this list already, at [${earlier.at}]`, read.at);
  }
  return [...first].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { value }]) => value.entry);
}

/** One of a few words. */
export function readWord<T extends string>(
  words: readonly T[],
  value: unknown,
  complain: (expected: string) => void,
): T | undefined {
  const word = words.find((candidate) => candidate === value);
  if (word !== undefined) return word;
  const lower = typeof value === 'string' ? words.find((candidate) => candidate === value.toLowerCase()) : '';
  complain(lower ? `${lower} in lower case` : listWords(words));
  return undefined;
}

export function listWords(words: readonly string[]): string {
  if (words.length < 2) return words.join('');
  return `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}
