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

/** Reads one entry or a list of one or more; entries that `one` refuses (undefined) are reported with `expected`. */
export function readList<T>(
  value: unknown,
  expected: string,
  report: Report,
  one: (entry: unknown, complain: (expected: string) => void) => T | undefined,
): T[] {
  const found: T[] = [];
  const read = (entry: unknown, at?: number): void => {
    let said = false;
    const result = one(entry, (message) => {
      said = true;
      report(message, at);
    });
    if (result !== undefined) found.push(result);
    else if (!said) report(expected, at);
  };
  if (!Array.isArray(value)) read(value);
  else if (value.length === 0) report(`${expected}, at least one`);
  else for (const [index, entry] of value.entries()) read(entry, index);
  return found;
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
