import { type FileHandle, open } from 'node:fs/promises';
import * as v from 'valibot';
import { formatProblem, PosternError, type Problem } from '../errors.ts';
import { issueProblems, unknownKeys } from './problems.ts';
import { parseSource, type Source } from './source.ts';

/** A policy of 10,000 rules is about 2 MiB of YAML; four times that is still parsed in seconds. */
export const CONFIG_MAX_BYTES = 8 * 1024 * 1024;
/** How many problems one report lists; what a person can work through at a time. */
export const CONFIG_MAX_PROBLEMS = 100;

/** What a schema checks beyond shape: rules between entries. Returns the problems, none when all is well. */
export type CrossCheck<T> = (value: T) => readonly Problem[];

/**
 * The same for a file whose shape has mistakes, so that one report holds everything: finds what it can in the
 * parts that are sound.
 */
export type SalvageCheck = (value: unknown) => readonly Problem[];

/**
 * Reads and checks one YAML or JSON file.
 * @throws PosternError ERR_CONFIG_UNREADABLE, or ERR_CONFIG_INVALID with every problem and its path.
 */
export async function readConfig<T>(
  file: string,
  schema: v.GenericSchema<unknown, T>,
  crossCheck?: CrossCheck<T>,
  salvage?: SalvageCheck,
): Promise<T> {
  return parseConfig(await readText(file), file, schema, crossCheck, salvage);
}

/** As `readConfig`, for text at hand; `source` names it in messages. The result is frozen through and through. */
export function parseConfig<T>(
  text: string,
  source: string,
  schema: v.GenericSchema<unknown, T>,
  crossCheck?: CrossCheck<T>,
  salvage?: SalvageCheck,
): T {
  const parsed = parseSource(text);
  if (!parsed.readable) throw invalid(source, parsed.problems, parsed);
  const result = v.safeParse(schema, parsed.value);
  const problems = [...parsed.problems, ...unknownKeys(schema, parsed.value)];
  if (result.success) problems.push(...(crossCheck?.(result.output) ?? []));
  else problems.push(...issueProblems(schema, result.issues), ...(salvage?.(parsed.value) ?? []));
  if (problems.length > 0 || !result.success) throw invalid(source, problems, parsed);
  return deepFreeze(result.output);
}

/**
 * The whole text of a file that a configuration names, bounded as configurations are.
 * @throws PosternError ERR_CONFIG_UNREADABLE
 */
export async function readText(file: string): Promise<string> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(file);
    return new TextDecoder('utf-8', { fatal: true }).decode(await readBounded(handle, file));
  } catch (error) {
    if (error instanceof PosternError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new PosternError('ERR_CONFIG_UNREADABLE', `${file}: cannot be read: ${reason}`, { cause: error });
  } finally {
    await handle?.close();
  }
}

/** Counts what it reads rather than trusting the file's size: a pipe has none, and a file may grow. */
async function readBounded(handle: FileHandle, file: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for (;;) {
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(65_536), 0, 65_536, null);
    if (bytesRead === 0) return Buffer.concat(chunks);
    sizeBytes += bytesRead;
    if (sizeBytes > CONFIG_MAX_BYTES) {
      throw new PosternError('ERR_CONFIG_UNREADABLE', `${file}: larger than ${CONFIG_MAX_BYTES} bytes`);
    }
    chunks.push(buffer.subarray(0, bytesRead));
  }
}

function invalid(source: string, problems: readonly Problem[], parsed: Source): PosternError {
  const placed = problems.map((problem) => {
    const line = problem.line ?? parsed.lineOf(problem.path);
    return line === undefined ? problem : { ...problem, line };
  });
  // In the order in which a person comes upon them.
  placed.sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
  const shown = placed.slice(0, CONFIG_MAX_PROBLEMS);
  const lines = shown.map((problem) => formatProblem(problem, source));
  if (placed.length > shown.length)
    lines.push(`${source}: and ${placed.length - shown.length} more problems`);
  return new PosternError('ERR_CONFIG_INVALID', lines.join('\n'), { problems: shown });
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}
