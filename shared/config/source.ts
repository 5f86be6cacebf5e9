import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Pair,
  parseDocument,
  visit,
  type YAMLError,
} from 'yaml';
import type { Problem } from '../errors.ts';
import { joinPath } from './path.ts';

/**
 * More than a person writes. Every alias costs a walk over the document, and copies of copies grow
 * exponentially ("billion laughs").
 */
const ALIASES_MAX = 100;

/** A text as YAML (of which JSON is a part), with the way back from a path to a line. */
export interface Source {
  readonly value: unknown;
  /** What is wrong with the text itself; not `readable` when nothing in it can be relied on. */
  readonly problems: readonly Problem[];
  readonly readable: boolean;
  /** The 1-based line of a path, or of the nearest part of it that exists. */
  lineOf(path: string): number | undefined;
}

export function parseSource(text: string): Source {
  const counter = new LineCounter();
  try {
    // The parser's own search for repeated keys is quadratic; ours is not.
    const options = { lineCounter: counter, prettyErrors: false, uniqueKeys: false };
    return readDocument(parseDocument(text, options), counter);
  } catch (error) {
    // The parser recurses: too deep a file ends in a RangeError of the stack, and so do aliases of aliases.
    if (!(error instanceof RangeError || error instanceof ReferenceError)) throw error;
    const problem = { path: '', found: error.message, expected: 'YAML or JSON with less nesting' };
    return { value: undefined, problems: [problem], readable: false, lineOf: () => undefined };
  }
}

function readDocument(document: Document.Parsed, counter: LineCounter): Source {
  const lineOf = (path: string): number | undefined => {
    const offset = locate(document, path);
    return offset === undefined ? undefined : counter.linePos(offset).line;
  };
  const syntax = [...document.errors, ...document.warnings].map((error) => syntaxProblem(error, counter));
  const { fatal, repeated } = inspect(document, counter);
  syntax.push(...fatal);
  if (syntax.length > 0) return { value: undefined, problems: syntax, readable: false, lineOf };
  const value: unknown = document.toJS({ maxAliasCount: ALIASES_MAX });
  return { value, problems: repeated, readable: true, lineOf };
}

function syntaxProblem(error: YAMLError, counter: LineCounter): Problem {
  const { line } = counter.linePos(error.pos[0]);
  return { path: '', found: error.message, expected: 'well-formed YAML or JSON', line };
}

/** What the parser takes and we do not, found in one walk. */
function inspect(document: Document.Parsed, counter: LineCounter): { fatal: Problem[]; repeated: Problem[] } {
  const fatal: Problem[] = [];
  const repeated: Problem[] = [];
  const lineAt = (node: unknown): number => counter.linePos(startOf(node) ?? 0).line;
  let aliases = 0;
  visit(document, {
    Alias: (_, alias) => {
      aliases += 1;
      if (aliases === ALIASES_MAX + 1) {
        fatal.push({ path: '', found: 'more', expected: `at most ${ALIASES_MAX} YAML aliases` });
      }
      if (aliases > ALIASES_MAX || alias.resolve(document) !== undefined) return;
      // A star without quotes is an alias to YAML: where nothing has its name, a pattern was meant.
      const expected = `quotes around what starts with a star: "*${alias.source}"`;
      fatal.push({ path: '', found: `*${alias.source}`, expected, line: lineAt(alias) });
    },
    Map: (_, map, ancestors) => {
      for (const { key } of map.items.filter((pair) => isMap(pair.key) || isSeq(pair.key))) {
        fatal.push({
          path: '',
          line: lineAt(key),
          found: 'a list or mapping as a key',
          expected: 'a plain key',
        });
      }
      repeated.push(...repeatedKeys(map.items, () => pathTo([...ancestors, map]), lineAt));
    },
  });
  return { fatal, repeated };
}

/** Two entries under one key: which of them counts would be anybody's guess. */
function repeatedKeys(
  items: readonly Pair[],
  pathOfMap: () => string,
  lineAt: (node: unknown) => number,
): Problem[] {
  const first = new Map<string, Pair>();
  return items.flatMap((pair) => {
    const key = keyOf(pair);
    const earlier = first.get(key);
    if (earlier === undefined) {
      first.set(key, pair);
      return [];
    }
    const expected = `one of it; the other is on line ${lineAt(earlier.key)}`;
    return [{ path: joinPath(pathOfMap(), key), line: lineAt(pair.key), found: 'the key twice', expected }];
  });
}

function pathTo(ancestors: readonly unknown[]): string {
  let path = '';
  for (const [index, node] of ancestors.entries()) {
    const inner = ancestors[index + 1];
    if (isSeq(node)) path = joinPath(path, node.items.indexOf(inner));
    else if (isPair(node)) path = joinPath(path, keyOf(node));
  }
  return path;
}

function isPair(node: unknown): node is Pair {
  return typeof node === 'object' && node !== null && !isNode(node) && 'key' in node;
}

function keyOf(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : String(pair.key);
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined;
}

/** The offset of the deepest part of a path that the document has. */
function locate(document: Document.Parsed, path: string): number | undefined {
  let node: unknown = document.contents;
  let rest = path;
  let offset = startOf(node);
  while (rest !== '') {
    if (isAlias(node)) node = node.resolve(document);
    const step = isMap(node)
      ? stepIntoMap(node.items, rest)
      : isSeq(node)
        ? stepIntoList(node.items, rest)
        : undefined;
    if (step === undefined) return offset;
    offset = step.offset ?? offset;
    node = step.node;
    rest = step.rest;
  }
  return offset;
}

interface Step {
  readonly node: unknown;
  readonly rest: string;
  readonly offset: number | undefined;
}

/** Takes the longest key that the path can mean: keys may hold dots. */
function stepIntoMap(items: readonly Pair[], path: string): Step | undefined {
  const dotless = path.startsWith('.') ? path.slice(1) : path;
  let best: { pair: Pair; length: number } | undefined;
  for (const pair of items) {
    const key = keyOf(pair);
    for (const spelling of [key, `[${JSON.stringify(key)}]`]) {
      const ends = dotless.startsWith(spelling) && /^($|[.[])/.test(dotless.slice(spelling.length));
      if (ends && spelling.length > (best?.length ?? 0)) best = { pair, length: spelling.length };
    }
  }
  if (best === undefined) return undefined;
  return { node: best.pair.value, rest: dotless.slice(best.length), offset: startOf(best.pair.key) };
}

function stepIntoList(items: readonly unknown[], path: string): Step | undefined {
  const match = /^\[(\d+)\]/.exec(path);
  const node = items[Number(match?.[1])];
  if (match === null || node === undefined) return undefined;
  return { node, rest: path.slice(match[0].length), offset: startOf(node) };
}
