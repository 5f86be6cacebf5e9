/** What a log record carries that is no news to a reader of the trail. */
const LEFT_OUT = new Set([
  'level',
  'time',
  'name',
  'msg',
  'pid',
  'hostname',
  'suppressed',
  'event',
  'flowId',
]);
/** Events of these are what an auditor asks for. */
const TOLD = /^(session\.up|flow\.|inbound\.)/;

/** The structured log of both sides as one list of lines for a person, in the order of time. */
export function auditTrail(logs: {
  readonly guest: readonly string[];
  readonly parent: readonly string[];
}): string[] {
  const records = [...parse('guest', logs.guest), ...parse('parent', logs.parent)];
  records.sort((a, b) => (a.time < b.time ? -1 : 1));
  return records.map(({ time, side, text }) => `${time.slice(11, 23)} ${side.padEnd(6)} ${text}`);
}

function parse(side: string, lines: readonly string[]): { time: string; side: string; text: string }[] {
  return lines.flatMap((line) => {
    if (!line.startsWith('{')) return [];
    const record = JSON.parse(line) as Record<string, unknown>;
    const event = String(record['event'] ?? '');
    if (side === 'guest' && !TOLD.test(event)) return [];
    const fields = Object.entries(record)
      .filter(([key]) => !LEFT_OUT.has(key))
      .map(([key, value]) => `${key}=${typeof value === 'object' ? JSON.stringify(value) : String(value)}`);
    return [{ time: String(record['time']), side, text: `${String(record['msg'])} ${fields.join(' ')}` }];
  });
}
