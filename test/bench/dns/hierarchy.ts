import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** All zones are P-256 with NSEC, as unbound's own measurements in the design were made. */
export interface Hierarchy {
  readonly zones: readonly string[];
  readonly anchor: string;
}

/** `.`, `bench.`, many small zones below it for cold chains, and one large for new names in a known zone. */
export function buildHierarchy(folder: string, smallCount: number, nameCount: number): Hierarchy {
  const small = Array.from({ length: smallCount }, (_, index) => `z${index}.bench.`);
  const below: string[] = [];
  for (const name of small) below.push(...signed(folder, name, ['www A 192.0.2.1']));
  const many = Array.from({ length: nameCount }, (_, index) => `n${index} A 192.0.2.1`);
  below.push(...signed(folder, 'names.bench.', [...many, '*.wild A 192.0.2.2']));
  const top = signed(folder, 'bench.', below);
  const [, , ...ds] = signed(folder, '.', top);
  const anchor = join(folder, 'root.anchor');
  writeFileSync(anchor, `${ds.join('\n')}\n`);
  return { zones: ['.', 'bench.', 'names.bench.', ...small], anchor };
}

export function signedFile(folder: string, name: string): string {
  return join(folder, `zone${name}signed`);
}

/** Writes and signs a zone; gives the records for its parent: NS, glue, DS. */
function signed(folder: string, name: string, records: readonly string[]): string[] {
  const run = (program: string, ...args: string[]): string =>
    execFileSync(program, args, {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  const host = name === '.' ? 'ns.' : `ns.${name}`;
  const head = [`$ORIGIN ${name}`, '$TTL 3600', `@ SOA ${host} ${host} 1 3600 900 604800 60`, `@ NS ${host}`];
  const plain = join(folder, `zone${name}plain`);
  writeFileSync(plain, `${[...head, `${host} A 127.0.0.2`, ...records].join('\n')}\n`);
  const ksk = run('dnssec-keygen', '-a', 'ECDSAP256SHA256', '-f', 'KSK', name);
  run('dnssec-keygen', '-a', 'ECDSAP256SHA256', name);
  run('dnssec-signzone', '-S', '-P', '-o', name, '-f', signedFile(folder, name), plain);
  return [`${name} NS ${host}`, `${host} A 127.0.0.2`, run('dnssec-dsfromkey', '-2', ksk)];
}
