import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseParentConfig } from '../../../parent/config/config.ts';
import { isPosternError } from '../../../shared/errors.ts';

const HEAD = 'version: 1\nstate: /var/lib/postern\n';
const ONE = 'listen: unix:/run/a, egress: {allow: []}';

/** Every problem as `path: expected … found …`, in the order of the file. */
function problemsOf(text: string): string[] {
  try {
    parseParentConfig(text, 'parent.yaml');
  } catch (error) {
    if (!isPosternError(error, 'ERR_CONFIG_INVALID')) throw error;
    return error.problems.map(({ path, expected, found }) => `${path}: ${expected} | ${found}`);
  }
  return [];
}

/** Asserts that exactly these paths have problems, and that each text says what its pattern asks. */
function assertProblems(text: string, expected: Record<string, RegExp>): void {
  const problems = problemsOf(text);
  const paths = problems.map((problem) => problem.slice(0, problem.indexOf(': ')));
  assert.deepEqual(paths.toSorted(), Object.keys(expected).toSorted(), problems.join('\n'));
  for (const [path, pattern] of Object.entries(expected)) {
    assert.match(problems.find((problem) => problem.startsWith(`${path}: `)) ?? '', pattern);
  }
}

test('fills in what is not said', () => {
  const config = parseParentConfig(`${HEAD}guests: {a: {${ONE}}}`, 'parent.yaml');
  assert.deepEqual(config.admin, { host: '127.0.0.1', port: 9464 });
  assert.deepEqual(config.log, { format: 'auto', level: 'info' });
  assert.equal(config.drainTimeoutMs, 30_000);
  assert.deepEqual(config.guests['a']?.quotas, {
    flows: 4096,
    dialsInFlight: 256,
    newFlowsPerSecond: 3000,
    inboundFlows: 4096,
    inboundPending: 256,
    associations: 512,
    datagramsPerSecond: 40_000,
  });
  assert.deepEqual(config.guests['a']?.forwards, []);
});

test('reads the example of the help text', () => {
  const text = `${HEAD}listen: vsock:ANY:5000
guests:
  web:
    cid: 16
    agent: vsock:16:5001
    egress:
      allow:
        - {cidr: 0.0.0.0/0, ports: 443}
    forwards:
      - {listen: 0.0.0.0:8443, to: 443}
`;
  assert.deepEqual(problemsOf(text), []);
});

test('lists every mistake at once, each with its path', () => {
  assertProblems(
    `version: 2
state: relative
admin: localhost:99
log: {format: fancy, colour: true}
drainTimeoutMs: soon
guests:
  web:
    cid: 0
    egress: {allow: [{fqdn: a.example, ports: 443}, {ip: 192.0.2.1, ports: 0}], denied: []}
    forwards:
      - {listen: 0.0.0.0:443, to: 70000, protocol: udp}
    quotas: {flows: 0, speed: 1}
  db: {listen: foo}
`,
    {
      version: /1, the only version/,
      state: /absolute path \| "relative"/,
      admin: /IP address and a port, or off/,
      'log.format': /auto, json or pretty/,
      'log.colour': /unknown key/,
      drainTimeoutMs: /whole number from 0/,
      'guests.web.cid': /from 1 to/,
      'guests.web.egress.allow[0].fqdn': /unknown key/,
      'guests.web.egress.allow[1].ports': /1 to 65535/,
      'guests.web.egress.denied': /unknown key/,
      'guests.web.forwards[0].to': /service port/,
      'guests.web.forwards[0].protocol': /tcp/,
      'guests.web.quotas.flows': /from 1 to/,
      'guests.web.quotas.speed': /unknown key/,
      'guests.db.listen': /vsock:CID:PORT/,
      'guests.db.egress': /a mapping \| nothing/,
    },
  );
});

test('a guest has exactly one way to be known, and what its forwards need', () => {
  assertProblems(
    `${HEAD}guests:
  none: {egress: {allow: any}}
  both: {cid: 5, listen: "unix:/run/b", egress: {allow: any}}
  vsock: {listen: "vsock:3:5000", egress: {allow: any}}
  far: {listen: "unix:/run/f", egress: {allow: any}, forwards: [{listen: "192.0.2.1:80", to: 80}]}
`,
    {
      'guests.none': /exactly one of cid and listen.* \| neither/,
      'guests.both': /exactly one of cid and listen.* \| both/,
      listen: /guests\.both\.cid/,
      'guests.vsock.listen': /by its cid/,
      'guests.far.agent': /guests\.far\.forwards/,
    },
  );
});

test('conflicts name both entries', () => {
  assertProblems(
    `${HEAD}admin: 0.0.0.0:443
listen: vsock:ANY:5000
guests:
  a: {cid: 16, agent: "vsock:16:1", egress: {allow: any}, forwards: [{listen: "192.0.2.1:443", to: 1}, {listen: "[::]:443", to: 1}]}
  b: {cid: 16, agent: "vsock:17:1", egress: {allow: any}}
  c: {listen: "unix:/run/s_5", agent: "unix:/run/q", egress: {allow: any}}
  d: {listen: "hybrid:/run/s:5", agent: "unix:/run/q", egress: {allow: any}, forwards: [{listen: "[2001:db8::1]:443", to: 1}]}
  e:
    listen: unix:/run/e
    egress:
      allow: [{name: x, ip: 192.0.2.1, ports: 1}]
      deny: [{name: x, ip: 192.0.2.2}]
`,
    {
      'guests.a.forwards[0].listen': /admin \(0\.0\.0\.0:443\)/,
      'guests.b.cid': /guests\.a\.cid/,
      'guests.b.agent': /CID 16, as guests\.b\.cid says/,
      'guests.d.listen': /guests\.c\.listen/,
      'guests.d.agent': /guests\.c\.agent/,
      'guests.d.forwards[0].listen': /guests\.a\.forwards\[1\]\.listen/,
      'guests.e.egress.deny[0].name': /guests\.e\.egress\.allow\[0\]/,
    },
  );
});

test('addresses are IP addresses with a port, in one spelling', () => {
  for (const address of [
    '0x7f.1:80',
    '127.1:80',
    '010.0.0.1:80',
    '::1:80',
    '[::1]',
    '[127.0.0.1]:80',
    '1.2.3.4:65536',
    ':80',
  ]) {
    const problems = problemsOf(`${HEAD}admin: "${address}"\nguests: {a: {${ONE}}}`);
    assert.equal(problems.length, 1, address);
  }
  assert.deepEqual(problemsOf(`${HEAD}admin: "[2001:DB8::0:1]:9464"\nguests: {a: {${ONE}}}`), []);
});
