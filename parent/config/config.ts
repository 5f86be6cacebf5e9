import type * as v from 'valibot';
import { type CrossCheck, parseConfig, readConfig } from '../../shared/config/load.ts';
import { formatTransportAddress } from '../../shared/transport/address.ts';
import { findConflicts } from './conflicts.ts';
import { egressSchema } from './egress.ts';
import { parentSchema } from './schema.ts';

const schema = parentSchema(egressSchema);

/** The whole of a parent's configuration, checked and frozen. See docs/configuration.md. */
export type ParentConfig = v.InferOutput<typeof schema>;
export type GuestConfig = ParentConfig['guests'][string];
export type ForwardConfig = GuestConfig['forwards'][number];
export type Quotas = GuestConfig['quotas'];

const crossCheck: CrossCheck<ParentConfig> = findConflicts;

/** @throws PosternError ERR_CONFIG_UNREADABLE, ERR_CONFIG_INVALID with every problem */
export function readParentConfig(file: string): Promise<ParentConfig> {
  return readConfig(file, schema, crossCheck);
}

/** As `readParentConfig`, for text at hand. */
export function parseParentConfig(text: string, source: string): ParentConfig {
  return parseConfig(text, source, schema, crossCheck);
}

/**
 * What the kernel tells a guest by: `cid:16`, or the address of the socket that only this guest can reach. The
 * remembered session key is bound to it, so that renaming a guest in the configuration forgets nothing.
 */
export function identityOf(guest: Pick<GuestConfig, 'cid' | 'listen'>): string {
  if (guest.cid !== undefined) return `cid:${guest.cid}`;
  return guest.listen === undefined ? 'nobody' : formatTransportAddress(guest.listen);
}
