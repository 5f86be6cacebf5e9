import { PosternError } from '../../shared/errors.ts';
import type { FlushMode } from '../volume/header.ts';

export function describeMode(mode: FlushMode): string {
  return mode.kind === 'lazy' ? `lazy (${mode.maxMs} ms, ${mode.maxCommits} commits)` : mode.kind;
}

/**
 * The configuration is measured, the header only sealed: a host that shows an older volume of this name must not get a weaker
 * promise accepted with it.
 * @throws PosternError ERR_CONFIG_INVALID
 */
export function assertMode(name: string, found: FlushMode, wanted: FlushMode): void {
  if (describeMode(found) === describeMode(wanted)) return;
  throw new PosternError(
    'ERR_CONFIG_INVALID',
    `volumes.${name}.mode: expected ${describeMode(found)}, as the volume was created, found ${describeMode(wanted)}`,
  );
}
