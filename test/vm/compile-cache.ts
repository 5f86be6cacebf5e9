import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { REPOSITORY } from './kernel.ts';

/** Node's own, see NODE_COMPILE_CACHE. The VM sees it at the same path, and what it adds is gone with it. */
export const COMPILE_CACHE = join(REPOSITORY, '.cache/vm/compile-cache');
/** Each loads its part of the program, finds no configuration, and ends. */
const COMMANDS = ['parent', 'guest', 'volume list', 'demo --help'];

/**
 * The VM takes most of a program's start to read TypeScript, some twenty times as long as this machine. What is compiled
 * here holds there as well, where Node and source are the same; Node sees to that.
 */
export function warmCompileCache(): void {
  const env = { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE };
  for (const command of COMMANDS) {
    const words = ['shared/cli/postern.ts', ...command.split(' ')];
    if (!command.endsWith('--help')) words.push('--config', '/nonexistent');
    spawnSync(join(REPOSITORY, 'node_modules/.bin/node'), words, { cwd: REPOSITORY, env, stdio: 'ignore' });
  }
}
