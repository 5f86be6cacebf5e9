import * as v from 'valibot';
import { count } from '../../shared/config/fields.ts';
import { isPosternError } from '../../shared/errors.ts';
import { BULK_THREADS_DEFAULT, BULK_THREADS_MAX } from '../../shared/flow/bulk-threads.ts';
import { policySchema } from '../../shared/policy/policy.ts';
import { parseTransportAddress } from '../../shared/transport/address.ts';
import { volumesSchema } from '../disk/config.ts';
import { parseLoopback } from '../proxy/loopback.ts';
import { leases, resolverAddress, zoneName } from './resolver-fields.ts';

/** What an owner can bear to wait for a parent that boots at the same time. */
const GATE_TIMEOUT_DEFAULT_SECONDS = 60;

const transportAddress = (example: string) =>
  v.pipe(
    v.string(`a transport address such as ${example}`),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      try {
        return parseTransportAddress(dataset.value);
      } catch (error) {
        if (!isPosternError(error)) throw error;
        addIssue({ message: 'vsock:CID:PORT, hybrid:PATH:PORT or unix:PATH' });
        return NEVER;
      }
    }),
  );

const loopbackAddress = v.pipe(
  v.string('a loopback address and port such as 127.0.0.1:1080'),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const address = parseLoopback(dataset.value);
    if (address !== undefined) return address;
    // Anything else would let other machines, or other guests, use this guest's rights.
    addIssue({ message: 'a loopback address and port such as 127.0.0.1:1080 or [::1]:1080' });
    return NEVER;
  }),
);

const absolutePath = v.pipe(
  v.string('an absolute path'),
  v.check((text) => text.startsWith('/') && !text.includes('\0'), 'an absolute path'),
);

const filePath = v.pipe(v.string('the path of a file'), v.minLength(1, 'the path of a file'));

/** A name of /etc/passwd or /etc/group, or a number. */
const account = v.union(
  [
    v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_fffe)),
    v.pipe(v.string(), v.regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?$/)),
  ],
  'a user or group name, or its number',
);

const workload = v.strictObject({
  user: v.optional(account),
  group: v.optional(account),
  workingDirectory: v.optional(absolutePath),
  environment: v.optional(
    v.record(
      v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'a name of letters, digits and underscores')),
      v.pipe(v.string('a text (numbers in quotes)'), v.regex(/^[^\0]*$/, 'a text without a zero byte')),
    ),
    {},
  ),
  proxyEnvironment: v.optional(v.boolean('true or false'), true),
  allowPrivilegeGain: v.optional(v.boolean('true or false'), false),
  gateTimeoutSeconds: v.optional(
    v.pipe(v.number('a number of seconds'), v.minValue(1, 'from 1'), v.maxValue(3600, 'up to 3600')),
    GATE_TIMEOUT_DEFAULT_SECONDS,
  ),
});

/** The guest's configuration file, before the policy is read. See docs/configuration.md. */
export const guestSchema = v.strictObject({
  version: v.literal(1, 'the number 1'),
  parent: transportAddress('vsock:3:5000'),
  listen: v.optional(transportAddress('vsock:ANY:5001')),
  policy: v.union(
    [v.pipe(v.string(), v.minLength(1)), policySchema],
    'the path of a policy file, or the policy itself',
  ),
  sessionKey: absolutePath,
  statusSocket: v.optional(absolutePath),
  proxies: v.optional(
    v.strictObject({ socks5: v.optional(loopbackAddress), http: v.optional(loopbackAddress) }),
    {},
  ),
  resolvers: v.optional(
    v.pipe(v.array(resolverAddress, 'a list of resolvers'), v.maxLength(4, 'at most 4 resolvers')),
    [],
  ),
  resolverCertificates: v.optional(filePath),
  trustAnchor: v.optional(filePath),
  negativeTrustAnchors: v.optional(
    v.pipe(v.array(zoneName, 'a list of zones'), v.maxLength(64, 'at most 64 zones')),
    [],
  ),
  leases: v.optional(leases, {}),
  dns: v.optional(v.strictObject({ listen: loopbackAddress })),
  capture: v.optional(v.picklist(['names'], 'names')),
  metrics: v.optional(loopbackAddress),
  bulkThreads: v.optional(count(0, BULK_THREADS_MAX), BULK_THREADS_DEFAULT),
  volumes: v.optional(volumesSchema, {}),
  workload: v.optional(workload, {}),
  log: v.optional(
    v.strictObject({
      level: v.optional(v.picklist(['debug', 'info', 'warn', 'error'], 'debug, info, warn or error'), 'info'),
      format: v.optional(v.picklist(['auto', 'json', 'pretty'], 'auto, json or pretty'), 'auto'),
    }),
    {},
  ),
});

export type GuestFile = v.InferOutput<typeof guestSchema>;
export type WorkloadConfig = GuestFile['workload'];
