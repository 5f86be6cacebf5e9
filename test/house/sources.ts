import { globSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

export const REPOSITORY = join(import.meta.dirname, '../..');

export interface Import {
  /** As written: `./name.ts`, `node:net`, `koffi`. */
  readonly specifier: string;
  /** Path from the repository's root, for an import of a file of ours. */
  readonly path: string | undefined;
}

export interface Source {
  /** From the repository's root, with `/`. */
  readonly path: string;
  readonly text: string;
  readonly lineCount: number;
  readonly imports: readonly Import[];
}

/** `from '…'`, `import '…'` and `import('…')`, types included. */
const IMPORT = /(?:^|[\s;}])(?:from|import)\s*\(?\s*'([^'\n]+)'/g;

/** All TypeScript of these top folders. */
export function readSources(...folders: string[]): Source[] {
  const files = folders.flatMap((folder) => globSync(`${folder}/**/*.ts`, { cwd: REPOSITORY }));
  return files.sort().map((path) => {
    const text = readFileSync(join(REPOSITORY, path), 'utf8');
    return { path, text, lineCount: text.split('\n').length - 1, imports: importsOf(path, text) };
  });
}

function importsOf(path: string, text: string): Import[] {
  return [...text.matchAll(IMPORT)].map(([, specifier = '']) => {
    const ours = specifier.startsWith('.');
    const target = join(REPOSITORY, path, '..', specifier);
    return { specifier, path: ours ? relative(REPOSITORY, target) : undefined };
  });
}

/** The files of each import cycle, as `a.ts -> b.ts -> a.ts`. */
export function findCycles(sources: readonly Source[]): string[] {
  const byPath = new Map(sources.map((source) => [source.path, source]));
  const done = new Set<string>();
  const trail: string[] = [];
  const cycles: string[] = [];
  const visit = (path: string) => {
    const start = trail.indexOf(path);
    if (start !== -1) cycles.push([...trail.slice(start), path].join(' -> '));
    if (start !== -1 || done.has(path)) return;
    trail.push(path);
    for (const target of byPath.get(path)?.imports ?? []) if (target.path !== undefined) visit(target.path);
    trail.pop();
    done.add(path);
  };
  for (const { path } of sources) visit(path);
  return cycles;
}
