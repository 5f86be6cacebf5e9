import { readFileSync } from 'node:fs';

/** The JSON lines of a document's `json-lines` block: documents and codecs cannot drift apart. */
export function vectorsOf(document: string): Record<string, unknown>[] {
  const text = readFileSync(new URL(`../../shared/wire/${document}`, import.meta.url), 'utf8');
  const block = /```json-lines\n([\s\S]*?)```/.exec(text)?.[1];
  if (block === undefined) throw new Error(`${document} has no vectors`);
  return block
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
