import { readFile, stat } from 'node:fs/promises';
import * as v from 'valibot';
import { type Document, isNode, LineCounter, parseDocument } from 'yaml';
import { formatProblem, PosternError, type Problem } from '../errors.ts';

/** A policy of 10,000 rules is about 2 MiB of YAML; four times that is still parsed in seconds. */
export const CONFIG_MAX_BYTES = 8 * 1024 * 1024;
/** How many problems one report lists; what a person can work through at a time. */
export const CONFIG_MAX_PROBLEMS = 100;

/** What a schema checks beyond shape: rules between entries. Returns the problems, none when all is well. */
export type CrossCheck<T> = (value: T) => readonly Problem[];

/**
 * Reads and checks one YAML or JSON file.
 * @throws PosternError ERR_CONFIG_UNREADABLE, or ERR_CONFIG_INVALID with every problem and its path.
 */
export async function readConfig<T>(
  file: string,
  schema: v.GenericSchema<unknown, T>,
  crossCheck?: CrossCheck<T>,
): Promise<T> {
  let text: string;
  try {
    const { size } = await stat(file);
    if (size > CONFIG_MAX_BYTES) {
      throw new PosternError('ERR_CONFIG_UNREADABLE', `${file}: ${size} bytes, over ${CONFIG_MAX_BYTES}`);
    }
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof PosternError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new PosternError('ERR_CONFIG_UNREADABLE', `${file}: cannot be read: ${reason}`, { cause: error });
  }
  return parseConfig(text, file, schema, crossCheck);
}

/** As `readConfig`, for text at hand; `source` names it in messages. The result is frozen through and through. */
export function parseConfig<T>(
  text: string,
  source: string,
  schema: v.GenericSchema<unknown, T>,
  crossCheck?: CrossCheck<T>,
): T {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, prettyErrors: false, uniqueKeys: true });
  if (document.errors.length > 0) {
    throw invalid(
      source,
      document.errors.map((error) => ({
        path: '',
        found: error.message,
        expected: 'well-formed YAML or JSON',
        line: lineCounter.linePos(error.pos[0]).line,
      })),
    );
  }
  const result = v.safeParse(schema, toPlainValue(document, source));
  const problems = result.success
    ? (crossCheck?.(result.output) ?? [])
    : result.issues.flatMap((issue) => issueProblems(issue));
  if (problems.length > 0) {
    throw invalid(
      source,
      problems.map((problem) => withLine(problem, document, lineCounter)),
    );
  }
  return deepFreeze(result.output as T);
}

function toPlainValue(document: Document, source: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    throw invalid(source, [{ path: '', found, expected: 'YAML without alias bombs' }]);
  }
}

function issueProblems(issue: v.BaseIssue<unknown>): Problem[] {
  // A union reports the issues of the alternative that came nearest; those say more than "no alternative".
  const nested = issue.type === 'union' || issue.type === 'variant' ? issue.issues : undefined;
  if (nested?.some((inner) => inner.path !== undefined)) {
    const prefix = pathOf(issue);
    return nested
      .flatMap((inner) => issueProblems(inner))
      .map((problem) => ({ ...problem, path: joinPath(prefix, problem.path) }));
  }
  const path = pathOf(issue);
  if (issue.type === 'strict_object' && issue.expected === 'never') {
    return [{ path, found: 'an unknown key', expected: `one of the keys of ${parentOf(path)}` }];
  }
  if (issue.input === undefined) return [{ path, found: 'nothing', expected: describe(issue) }];
  return [{ path, found: issue.received, expected: describe(issue) }];
}

function describe(issue: v.BaseIssue<unknown>): string {
  // A schema that gives its own message states what it expects; valibot's own messages start with "Invalid".
  return issue.message.startsWith('Invalid ') ? (issue.expected ?? issue.message) : issue.message;
}

function parentOf(path: string): string {
  const cut = path.lastIndexOf('.');
  return cut <= 0 ? 'the file’s top level' : path.slice(0, cut);
}

function joinPath(prefix: string, path: string): string {
  if (prefix === '' || path === '') return prefix + path;
  return path.startsWith('[') ? prefix + path : `${prefix}.${path}`;
}

function pathOf(issue: v.BaseIssue<unknown>): string {
  let path = '';
  for (const item of issue.path ?? []) {
    if (typeof item.key === 'number') path += `[${item.key}]`;
    else path += path === '' ? String(item.key) : `.${String(item.key)}`;
  }
  return path;
}

function withLine(problem: Problem, document: Document, lineCounter: LineCounter): Problem {
  if (problem.line !== undefined) return problem;
  const keys = problem.path.split(/[.[\]]+/).filter((key) => key !== '');
  for (let depth = keys.length; depth > 0; depth -= 1) {
    const node = document.getIn(keys.slice(0, depth).map(numeric), true);
    if (isNode(node) && node.range) return { ...problem, line: lineCounter.linePos(node.range[0]).line };
  }
  return problem;
}

function numeric(key: string): string | number {
  return /^\d+$/.test(key) ? Number(key) : key;
}

function invalid(source: string, problems: readonly Problem[]): PosternError {
  const shown = problems.slice(0, CONFIG_MAX_PROBLEMS);
  const rest = problems.length - shown.length;
  const lines = shown.map((problem) => formatProblem(problem, source));
  if (rest > 0) lines.push(`${source}: and ${rest} more problems`);
  return new PosternError('ERR_CONFIG_INVALID', lines.join('\n'), { problems: shown });
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}
