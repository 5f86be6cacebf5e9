import type { PortRange } from './types.ts';

export const PORT_MAX = 65_535;
export const ALL_PORTS: readonly PortRange[] = [{ from: 1, to: PORT_MAX }];
const EXPECTED = 'a port from 1 to 65535, or a range such as "8000-8100"';

/** Reads a port number or a "from-to" text. Undefined after a complaint. */
export function readPorts(value: unknown, complain: (expected: string) => void): PortRange | undefined {
  if (typeof value === 'number') {
    if (isPort(value)) return { from: value, to: value };
    complain('a port from 1 to 65535');
    return undefined;
  }
  if (typeof value !== 'string') {
    complain(EXPECTED);
    return undefined;
  }
  if (/^\d+$/.test(value)) {
    complain(
      isPort(Number(value)) ? `${Number(value)} as a number, without quotes` : 'a port from 1 to 65535',
    );
    return undefined;
  }
  const match = /^(\d{1,6})-(\d{1,6})$/.exec(value);
  if (match === null) {
    complain(/^(\*|all|any)$/i.test(value) ? '"1-65535" for all ports' : EXPECTED);
    return undefined;
  }
  const [from, to] = [Number(match[1]), Number(match[2])];
  if (isPort(from) && isPort(to) && from <= to) return { from, to };
  complain(isPort(from) && isPort(to) ? `the lower port first: "${to}-${from}"` : 'ports from 1 to 65535');
  return undefined;
}

export function isPort(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= PORT_MAX;
}

/** Sorted, overlapping and neighbouring ranges joined. */
export function joinPorts(ranges: readonly PortRange[]): PortRange[] {
  const joined: PortRange[] = [];
  for (const range of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = joined.at(-1);
    if (last === undefined || range.from > last.to + 1) joined.push(range);
    else joined[joined.length - 1] = { from: last.from, to: Math.max(last.to, range.to) };
  }
  return joined;
}

export function formatPorts(ranges: readonly PortRange[]): string {
  return ranges.map(({ from, to }) => (from === to ? `${from}` : `${from}-${to}`)).join(', ');
}
