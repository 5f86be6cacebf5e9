import * as v from 'valibot';
import type { Problem } from '../errors.ts';
import { didYouMean, joinPath } from './path.ts';

type Key = string | number;

/** What the schemas that configurations use are made of; which fields there are depends on `type`. */
interface Shape {
  readonly type: string;
  readonly expects?: string | null;
  readonly entries?: Readonly<Record<string, Shape>>;
  readonly item?: Shape;
  readonly items?: readonly Shape[];
  readonly value?: Shape;
  readonly wrapped?: Shape;
  readonly options?: readonly unknown[];
}

/** A text of the source in a message: enough to find it again. */
const FOUND_MAX = 80;

const WORDS: Readonly<Record<string, string>> = {
  Object: 'a mapping',
  Array: 'a list',
  string: 'a text',
  number: 'a number',
  boolean: 'true or false',
  unknown: 'a value',
};

/** One problem for each issue of valibot's but unknown keys, of which it reports the first only. */
export function issueProblems(
  schema: v.GenericSchema,
  issues: readonly v.BaseIssue<unknown>[],
  prefix: readonly Key[] = [],
): Problem[] {
  return issues.flatMap((issue) => {
    const keys = [...prefix, ...keysOf(issue)];
    const shape = descend(schema, keysOf(issue));
    if (issue.type === 'strict_object' && issue.expected === 'never') return [];
    if (issue.type === 'union' && shape?.type === 'union') {
      const nearest = nearestOption(shape, issue.input);
      // An alternative of the right kind whose inside is wrong says more than the list of alternatives.
      if (nearest?.issues.every((inner) => inner.path !== undefined)) {
        return issueProblems(nearest.option, nearest.issues, keys);
      }
    }
    return [{ path: keys.reduce(joinPath, ''), found: foundOf(issue), expected: expectedOf(issue, shape) }];
  });
}

function keysOf(issue: v.BaseIssue<unknown>): Key[] {
  return (issue.path ?? []).map(({ key }) => (typeof key === 'number' ? key : String(key)));
}

/** The part of a schema that a path leads to. */
function descend(schema: v.GenericSchema, keys: readonly Key[]): Shape | undefined {
  let shape: Shape | undefined = schema as unknown as Shape;
  for (const key of keys) {
    const holder: Shape | undefined = shape === undefined ? undefined : unwrap(shape);
    if (holder === undefined) return undefined;
    if (typeof key === 'number') shape = holder.item ?? holder.items?.[key];
    else
      shape =
        holder.entries !== undefined && Object.hasOwn(holder.entries, key)
          ? holder.entries[key]
          : holder.value;
  }
  return shape === undefined ? undefined : unwrap(shape);
}

function unwrap(shape: Shape): Shape {
  let inner = shape;
  while (inner.wrapped !== undefined) inner = inner.wrapped;
  return inner;
}

function foundOf(issue: v.BaseIssue<unknown>): string {
  if (issue.received !== v._stringify(issue.input)) return issue.received;
  return describeValue(issue.input);
}

/** What stands in the file, in words a person can find again. */
export function describeValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'an empty value';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (typeof value === 'object') return 'a mapping';
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > FOUND_MAX ? `${text.slice(0, FOUND_MAX)}…` : text;
}

function expectedOf(issue: v.BaseIssue<unknown>, shape: Shape | undefined): string {
  // A schema that states what it expects gives its own message or description; valibot's begin with "Invalid".
  if (!issue.message.startsWith('Invalid ')) return issue.message;
  const described = shape === undefined ? undefined : v.getDescription(shape as unknown as v.GenericSchema);
  const plain = described ?? plainExpected(issue, shape);
  const numeral = typeof issue.input === 'string' && /^-?\d+(\.\d+)?$/.test(issue.input);
  return numeral && shape?.type === 'number' ? `${plain}, without quotes` : plain;
}

function plainExpected(issue: v.BaseIssue<unknown>, shape: Shape | undefined): string {
  if (issue.type === 'integer' || issue.type === 'safe_integer') return 'a whole number';
  const expected = issue.input === undefined ? shape?.expects : issue.expected;
  if (expected === null || expected === undefined) return issue.message;
  const words = expected.replace(/^\((.*)\)$/, '$1').split(' | ');
  return words.map((word) => WORDS[word] ?? word).join(' or ');
}

/**
 * Every key that its strict mapping does not have. Own walk, not valibot's: that one stops at the first, and takes
 * `constructor` or `__proto__` for keys it knows since every object inherits them.
 */
export function unknownKeys(schema: v.GenericSchema, value: unknown): Problem[] {
  const problems: Problem[] = [];
  walk(schema as unknown as Shape, value, '', problems);
  return problems;
}

function walk(schema: Shape, value: unknown, path: string, problems: Problem[]): void {
  const shape = unwrap(schema);
  if (typeof value !== 'object' || value === null) return;
  if (shape.type === 'union' || shape.type === 'variant') {
    const nearest = nearestOption(shape, value);
    if (nearest !== undefined) walk(nearest.option as unknown as Shape, value, path, problems);
  } else if (Array.isArray(value)) {
    // To valibot a list is an object, if one without the keys.
    const isMapping = shape.entries !== undefined || shape.type === 'record';
    if (isMapping) problems.push({ path, found: describeValue(value), expected: 'a mapping' });
    for (const [index, entry] of value.entries()) {
      const item = shape.item ?? shape.items?.[index];
      if (item !== undefined) walk(item, entry, joinPath(path, index), problems);
    }
  } else {
    for (const [key, entry] of Object.entries(value)) walkKey(shape, key, entry, path, problems);
  }
}

function walkKey(shape: Shape, key: string, value: unknown, parent: string, problems: Problem[]): void {
  const path = joinPath(parent, key);
  const known = shape.entries !== undefined && Object.hasOwn(shape.entries, key);
  const inner = known ? shape.entries?.[key] : shape.value;
  if (inner !== undefined) walk(inner, value, path, problems);
  else if (shape.type === 'strict_object')
    problems.push(unknownKey(path, key, Object.keys(shape.entries ?? {})));
}

function unknownKey(path: string, key: string, keys: readonly string[]): Problem {
  const meant = didYouMean(key, keys);
  const all = `one of the keys ${keys.join(', ')}`;
  return {
    path,
    found: 'an unknown key',
    expected: meant === undefined ? all : `${all}; did you mean ${meant}?`,
  };
}

/** The alternative that comes nearest: one that parses, else the one of the right kind with the fewest mistakes. */
function nearestOption(
  shape: Shape,
  value: unknown,
): { readonly option: v.GenericSchema; readonly issues: readonly v.BaseIssue<unknown>[] } | undefined {
  let nearest: { option: v.GenericSchema; issues: readonly v.BaseIssue<unknown>[]; cost: number } | undefined;
  for (const option of (shape.options ?? []) as v.GenericSchema[]) {
    // The options of a picklist are words, not schemas.
    if (typeof option !== 'object') return undefined;
    const issues = v.safeParse(option, value).issues ?? [];
    const wrongKind = issues.some((issue) => issue.path === undefined);
    const wrongTag = issues.filter((issue) => issue.type === 'literal').length;
    const cost = issues.length + wrongTag * 100 + (wrongKind ? 10_000 : 0);
    if (nearest === undefined || cost < nearest.cost) nearest = { option, issues, cost };
  }
  return nearest;
}
