import { readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { createSecureContext } from 'node:tls';
import * as v from 'valibot';
import { parse } from 'yaml';
import { readConfig, readText } from '../../shared/config/load.ts';
import { isPosternError, PosternError, type Problem } from '../../shared/errors.ts';
import { readPolicy } from '../../shared/policy/policy.ts';
import type { Policy } from '../../shared/policy/types.ts';
import { overwideRule, PORTS_PER_NAME_MAX } from '../capture/ports.ts';
import { volumeProblems } from '../disk/config.ts';
import { parseAnchors, type TrustAnchor } from '../dns/anchors.ts';
import { ROOT_ANCHORS } from '../dns/root-anchor.ts';
import { type GuestFile, guestSchema } from './schema.ts';

/** The guest's configuration with everything it refers to: parsed once, frozen. */
export interface GuestConfig extends Omit<GuestFile, 'policy' | 'statusSocket' | 'trustAnchor'> {
  readonly policy: Policy;
  readonly statusSocket: string;
  readonly trustAnchors: readonly TrustAnchor[];
  /** PEM. */
  readonly resolverCertificates: string | undefined;
}

/**
 * Reads the configuration and its policy; mistakes of both are listed at once.
 * @throws PosternError ERR_CONFIG_UNREADABLE, ERR_CONFIG_INVALID
 */
export async function loadGuestConfig(file: string): Promise<GuestConfig> {
  const [config, configError] = await attempt(readConfig(file, guestSchema));
  const policyPath = config === undefined ? await policyPathOf(file) : config.policy;
  const [policy, policyError] =
    typeof policyPath === 'string'
      ? await attempt(readPolicy(resolve(dirname(file), policyPath)))
      : [config === undefined ? undefined : (config.policy as Policy), undefined];
  const [anchors, anchorError] = await attempt(readAnchors(pathBeside(file, config?.trustAnchor)));
  const [certificates, certificateError] = await attempt(
    readCertificates(pathBeside(file, config?.resolverCertificates)),
  );
  const errors = [configError, policyError, anchorError, certificateError].filter(
    (error) => error !== undefined,
  );
  if (errors.length > 0) throw together(errors);
  if (config === undefined || policy === undefined || anchors === undefined)
    throw new Error('a configuration without value or error');
  const problems = crossProblems(config, policy);
  if (problems.length > 0) {
    const lines = problems.map(
      ({ path, expected, found }) => `${file}: ${path}: expected ${expected}, found ${found}`,
    );
    throw new PosternError('ERR_CONFIG_INVALID', lines.join('\n'), { problems });
  }
  const statusSocket = config.statusSocket ?? defaultStatusSocket(config.sessionKey);
  return Object.freeze({
    ...config,
    policy,
    statusSocket,
    trustAnchors: anchors,
    resolverCertificates: certificates,
  });
}

/** Beside the session key: that folder is known to be closed to others. */
export function defaultStatusSocket(sessionKey: string): string {
  return join(dirname(sessionKey), 'guest.sock');
}

async function attempt<T>(work: Promise<T>): Promise<[T, undefined] | [undefined, PosternError]> {
  try {
    return [await work, undefined];
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return [undefined, error];
  }
}

/** The policy's path in a file that has mistakes elsewhere, as far as it can be made out. */
async function policyPathOf(file: string): Promise<string | undefined> {
  try {
    const found: unknown = parse(await readFile(file, 'utf8'));
    const result = v.safeParse(v.object({ policy: v.string() }), found);
    return result.success ? result.output.policy : undefined;
  } catch {
    // The report of the file itself says what is wrong with it.
    return undefined;
  }
}

function together(errors: readonly PosternError[]): PosternError {
  const [first] = errors;
  if (first !== undefined && errors.length === 1) return first;
  const message = errors.map((error) => error.message).join('\n');
  const problems = errors.flatMap((error) => error.problems);
  return new PosternError('ERR_CONFIG_INVALID', message, { problems });
}

function pathBeside(file: string, path: string | undefined): string | undefined {
  return path === undefined ? undefined : resolve(dirname(file), path);
}

async function readAnchors(path: string | undefined): Promise<TrustAnchor[]> {
  if (path === undefined) return parseAnchors(ROOT_ANCHORS, 'the shipped anchors');
  return parseAnchors(await readText(path), path);
}

async function readCertificates(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  const text = await readText(path);
  try {
    createSecureContext({ ca: text });
    if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  } catch {
    // Told below, as for a file without any.
  }
  const [expected, found] = ['certificates in PEM form', 'something else'];
  throw new PosternError('ERR_CONFIG_INVALID', `${path}: expected ${expected}, found ${found}`, {
    problems: [{ path: 'resolverCertificates', expected, found }],
  });
}

function crossProblems(config: GuestFile, policy: Policy): Problem[] {
  const problems: Problem[] = volumeProblems(config.volumes);
  const need = (path: string, expected: string): void => {
    problems.push({ path, expected, found: 'nothing' });
  };
  const named = policy.egress.allow.find((rule) => rule.fqdn.length > 0);
  if (named !== undefined && config.resolvers.length === 0) {
    need('resolvers', `at least one, as the policy's rule ${named.label} names a host`);
  }
  if (config.dns !== undefined && config.resolvers.length === 0)
    need('resolvers', 'at least one, for the DNS server of dns.listen to ask');
  if (config.capture === 'names') problems.push(...captureProblems(config, policy));
  const [ingress] = policy.ingress;
  if (ingress !== undefined && config.listen === undefined) {
    need('listen', `an address, as the policy's ${ingress.label} lets clients in`);
  }
  const { socks5, http } = config.proxies;
  const hasWayOut = socks5 !== undefined || http !== undefined || config.capture !== undefined;
  if (policy.egress.allow.length > 0 && !hasWayOut) {
    need('proxies', 'socks5 or http, as the policy lets flows out (or capture: names)');
  }
  if (
    socks5 !== undefined &&
    http !== undefined &&
    socks5.port !== 0 &&
    socks5.port === http.port &&
    socks5.host === http.host
  ) {
    problems.push({
      path: 'proxies.http',
      expected: 'another port than proxies.socks5',
      found: `port ${http.port}`,
    });
  }
  return problems;
}

function captureProblems({ dns }: GuestFile, policy: Policy): Problem[] {
  const problems: Problem[] = [];
  if (dns === undefined)
    problems.push({
      path: 'dns.listen',
      expected: 'an address, as capture: names answers there',
      found: 'nothing',
    });
  const wide = overwideRule(policy);
  if (wide !== undefined) {
    const expected = `at most ${PORTS_PER_NAME_MAX} ports in ${wide.label}, as each is listened on`;
    problems.push({ path: 'capture', expected, found: 'more' });
  }
  return problems;
}
