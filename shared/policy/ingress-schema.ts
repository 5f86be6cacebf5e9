import * as v from 'valibot';
import { formatAddress, parseAddress } from './address.ts';
import { field, readWord } from './field.ts';
import { isPort } from './ports.ts';
import { hostPrefix, type Prefix } from './prefix.ts';
import { readCidr, readPrefixes } from './prefix-field.ts';
import { ruleName } from './rule-fields.ts';
import type { IngressRule } from './types.ts';

const servicePort = field('a port from 1 to 65535', (value, report) => {
  if (typeof value === 'number' && isPort(value)) return value;
  const digits = typeof value === 'string' && /^\d+$/.test(value) && isPort(Number(value));
  report(digits ? `${Number(value)} as a number, without quotes` : 'a port from 1 to 65535');
  return 0;
});

const TO = 'where the workload listens, such as 127.0.0.1:8443 or "[::1]:8443"';
const to = field(TO, (value, report) => {
  const match = typeof value === 'string' ? /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(value) : null;
  const address = parseAddress(match?.[1] ?? match?.[2] ?? '');
  const port = Number(match?.[3]);
  if (address !== undefined && isPort(port)) return { address: formatAddress(address), port };
  report(match?.[2] !== undefined && isPort(port) ? `${TO}: an address, names are not resolved here` : TO);
  return { address: '', port: 0 };
});

const INGRESS_ENTRIES = {
  name: v.optional(ruleName),
  port: servicePort,
  to,
  protocol: v.optional(
    field('tcp or udp', (value, report) => readWord(['tcp', 'udp'] as const, value, report)),
    'tcp',
  ),
  proxyProtocol: v.optional(field('v2', (value, report) => readWord(['v2'] as const, value, report))),
  from: v.optional(field('CIDR blocks', (value, report) => readPrefixes(value, report, readFrom))),
};

function readFrom(entry: unknown, complain: (expected: string) => void): Prefix | undefined {
  const address = typeof entry === 'string' ? parseAddress(entry) : undefined;
  return address === undefined ? readCidr(entry, complain) : hostPrefix(address);
}

export type IngressBody = Omit<IngressRule, 'label' | 'path'> & { readonly name?: string };

export function ingressSchema(): v.GenericSchema<unknown, IngressBody> {
  return v.pipe(
    v.strictObject(INGRESS_ENTRIES),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const { name, port, to, protocol, proxyProtocol, from } = dataset.value;
      if (proxyProtocol !== undefined && protocol === 'udp') {
        const input = { ...dataset.value };
        const item = {
          type: 'object',
          origin: 'value',
          input,
          key: 'proxyProtocol',
          value: proxyProtocol,
        } as const;
        addIssue({ message: 'proxyProtocol with tcp only', input: proxyProtocol, path: [item] });
        return NEVER;
      }
      const body: IngressBody = {
        ...(name === undefined ? {} : { name }),
        port,
        protocol: protocol ?? 'tcp',
        to,
        ...(proxyProtocol === undefined ? {} : { proxyProtocol }),
        ...(from === undefined ? {} : { from }),
      };
      return body;
    }),
  );
}
