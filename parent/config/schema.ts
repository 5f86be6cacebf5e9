import * as v from 'valibot';
import { count } from '../../shared/config/fields.ts';
import { PosternError } from '../../shared/errors.ts';
import { BULK_THREADS_DEFAULT, BULK_THREADS_MAX } from '../../shared/flow/bulk-threads.ts';
import { parseTransportAddress } from '../../shared/transport/address.ts';
import { grantsSchema, objectLimitsSchema, storesSchema } from '../objects/config.ts';
import { parseTcpAddress } from '../tcp/address.ts';

/** Fits every name a person gives a machine, and keeps metric labels and file names harmless. */
const GUEST_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
/** More guests than one host has memory for; a list longer than that is a mistake. */
export const GUESTS_MAX = 4096;
/** Past a few hundred, a range of addresses is what was meant. */
export const FORWARDS_MAX = 1024;
/** 0 is the hypervisor; 1, this machine itself, is of use where vsock_loopback carries a guest of the same kernel (vsock(7)). */
const GUEST_CID_MIN = 1;
/** 32 bits less VMADDR_CID_ANY. */
const GUEST_CID_MAX = 0xfffffffe;

export const DEFAULT_ADMIN = '127.0.0.1:9464';
/** Long enough for the requests of a web service to end, short enough for a service manager's own patience (90 s). */
export const DEFAULT_DRAIN_TIMEOUT_MS = 30_000;

/**
 * What one guest may use at a time. Every default is per guest; there is no limit that guests share, so that none
 * can use up what another needs.
 */
export const DEFAULT_QUOTAS = {
  /** Egress flows that live at once, those still dialling included: about 40 MiB of buffers at worst. */
  flows: 4096,
  /** Twenty black-holed dials leave room for 236 more, so they delay nobody; 256 SYNs a guest alarm no firewall. */
  dialsInFlight: 256,
  /** The rate that one event loop serves; a burst of one second's worth is allowed. */
  newFlowsPerSecond: 3000,
  /** Clients of the guest's forwards at once. */
  inboundFlows: 4096,
  /** Clients whose stream to the guest is not answered yet: what a guest that stopped answering can hold up. */
  inboundPending: 256,
  /** UDP associations at once, two descriptors each: 64 MiB of datagrams for a guest that reads none of them. */
  associations: 512,
  /** Datagrams, both directions together: half of what one event loop carries. */
  datagramsPerSecond: 40_000,
} as const;

const port = (expected = 'a port from 1 to 65535') =>
  v.pipe(v.number(expected), v.integer(expected), v.minValue(1, expected), v.maxValue(65535, expected));

/** A string that `parse` turns into `T`, or rejects with a coded error; the problem then says `expected`. */
function parsed<T>(expected: string, parse: (text: string) => T) {
  return v.pipe(
    v.string(expected),
    v.rawTransform<string, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return parse(dataset.value);
      } catch (error) {
        if (!(error instanceof PosternError)) throw error;
        addIssue({ message: expected });
        return NEVER;
      }
    }),
  );
}

const transportAddress = parsed('vsock:CID:PORT, hybrid:PATH:PORT or unix:PATH', parseTransportAddress);
const tcpAddress = parsed('an IP address and a port, as 192.0.2.1:443 or [2001:db8::1]:443', parseTcpAddress);

const absolutePath = v.pipe(
  v.string('an absolute path'),
  v.regex(/^\/[^\0]*$/, 'an absolute path'),
  v.maxLength(4096, 'a path of at most 4096 characters'),
);

const forward = v.strictObject({
  listen: tcpAddress,
  to: port('the service port of the guest’s ingress policy, 1 to 65535'),
  protocol: v.optional(v.picklist(['tcp'], 'tcp'), 'tcp'),
});

const quotas = v.strictObject({
  flows: v.optional(count(1, 1_000_000), DEFAULT_QUOTAS.flows),
  dialsInFlight: v.optional(count(1, 65_536), DEFAULT_QUOTAS.dialsInFlight),
  newFlowsPerSecond: v.optional(count(1, 1_000_000), DEFAULT_QUOTAS.newFlowsPerSecond),
  inboundFlows: v.optional(count(1, 1_000_000), DEFAULT_QUOTAS.inboundFlows),
  inboundPending: v.optional(count(1, 65_536), DEFAULT_QUOTAS.inboundPending),
  associations: v.optional(count(1, 65_536), DEFAULT_QUOTAS.associations),
  datagramsPerSecond: v.optional(count(1, 10_000_000), DEFAULT_QUOTAS.datagramsPerSecond),
  /** Payload of all flows of the guest, both directions together; absent: not limited. */
  bytesPerSecond: v.optional(count(1024, Number.MAX_SAFE_INTEGER)),
});

const guest = <Egress extends v.GenericSchema>(egress: Egress) =>
  v.strictObject({
    cid: v.optional(count(GUEST_CID_MIN, GUEST_CID_MAX)),
    listen: v.optional(transportAddress),
    agent: v.optional(transportAddress),
    egress,
    forwards: v.optional(
      v.pipe(v.array(forward), v.maxLength(FORWARDS_MAX, `at most ${FORWARDS_MAX} forwards`)),
      [],
    ),
    quotas: v.optional(quotas, {}),
    objects: v.optional(grantsSchema, []),
    objectLimits: v.optional(objectLimitsSchema, {}),
  });

/** The schema of the parent's configuration, around the schema of a guest's `egress`. */
export const parentSchema = <Egress extends v.GenericSchema>(egress: Egress) =>
  v.strictObject({
    version: v.literal(1, '1, the only version of this file there is'),
    state: absolutePath,
    listen: v.optional(transportAddress),
    admin: v.optional(
      v.union([v.literal('off'), tcpAddress], 'an IP address and a port, or off'),
      DEFAULT_ADMIN,
    ),
    log: v.optional(
      v.strictObject({
        format: v.optional(v.picklist(['auto', 'json', 'pretty'], 'auto, json or pretty'), 'auto'),
        level: v.optional(
          v.picklist(['debug', 'info', 'warn', 'error', 'silent'], 'debug, info, warn, error or silent'),
          'info',
        ),
      }),
      {},
    ),
    stores: v.optional(storesSchema, {}),
    bulkThreads: v.optional(count(0, BULK_THREADS_MAX), BULK_THREADS_DEFAULT),
    drainTimeoutMs: v.optional(count(0, 3_600_000), DEFAULT_DRAIN_TIMEOUT_MS),
    guests: v.pipe(
      v.record(
        v.pipe(v.string(), v.regex(GUEST_NAME, 'a name of a-z, 0-9 and -, at most 63 characters')),
        guest(egress),
        'guests, as NAME: {…}',
      ),
      v.check((guests) => Object.keys(guests).length <= GUESTS_MAX, `at most ${GUESTS_MAX} guests`),
    ),
  });
