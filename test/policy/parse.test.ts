import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../shared/config/load.ts';
import { isPosternError, type Problem } from '../../shared/errors.ts';
import { egressConflicts } from '../../shared/policy/conflicts.ts';
import { guardSchema, parsePolicy } from '../../shared/policy/policy.ts';
import { formatPrefix } from '../../shared/policy/prefix.ts';

function problemsOf(parse: () => unknown): readonly Problem[] {
  try {
    parse();
  } catch (error) {
    assert.ok(isPosternError(error, 'ERR_CONFIG_INVALID'), String(error));
    assert.ok(error.problems.length > 0);
    return error.problems;
  }
  return assert.fail('accepted');
}

/** `path line expected`, for policies that begin at line 1. */
const mistakes = (text: string): readonly Problem[] => problemsOf(() => parsePolicy(text, 'p.yaml'));

function mistake(text: string): Problem {
  const [first, second] = mistakes(text);
  assert.equal(second, undefined, JSON.stringify(second));
  assert.ok(first);
  return first;
}

const allow = (rule: string): string => `version: 1\negress:\n  allow:\n    - ${rule}\n`;
const deny = (rule: string): string => `version: 1\negress:\n  deny:\n    - ${rule}\n`;

test('a rule in its one spelling: defaults filled in, lists sorted, ports joined', () => {
  const policy = parsePolicy(
    `version: 1
egress:
  allow:
    - name: web
      fqdn: [B.example.com., a.example.com]
      ports: [443, "8000-8100", 8101, "8050-8060"]
    - cidr: ["::ffff:10.0.0.0/104", 192.0.2.0/24]
      ports: 5432
      protocol: [udp, tcp]
  deny:
    - ip: 192.0.2.7
    - ip: 192.0.2.8
      ports: 25
ingress:
  - port: 443
    to: "[::1]:8443"`,
    'p.yaml',
  );
  assert.deepEqual(policy.egress.allow[0], {
    label: 'web',
    path: 'egress.allow[0]',
    fqdn: ['a.example.com', 'b.example.com'],
    prefixes: [],
    protocols: ['tcp'],
    ports: [
      { from: 443, to: 443 },
      { from: 8000, to: 8101 },
    ],
    dnssec: 'validate',
  });
  const [, blocks] = policy.egress.allow;
  assert.deepEqual(blocks?.prefixes.map(formatPrefix), ['10.0.0.0/8', '192.0.2.0/24']);
  assert.deepEqual(blocks?.protocols, ['tcp', 'udp']);
  const [all, some] = policy.egress.deny;
  assert.deepEqual([all?.protocols, all?.ports], [['tcp', 'udp', 'icmp'], [{ from: 1, to: 65_535 }]]);
  assert.deepEqual([some?.protocols, some?.ports], [['tcp', 'udp'], [{ from: 25, to: 25 }]]);
  assert.deepEqual(policy.ingress[0]?.to, { address: '::1', port: 8443 });
  assert.ok(Object.isFrozen(policy) && Object.isFrozen(policy.egress.allow[0]?.ports));
});

test('JSON is the same language', () => {
  const yaml = parsePolicy(allow('{ fqdn: a.example.com, ports: 443 }'), 'a');
  const json = '{"version":1,"egress":{"allow":[{"fqdn":"a.example.com","ports":443}]}}';
  assert.deepEqual(parsePolicy(json, 'b'), yaml);
});

/** One mistake each: the rule, the path below it, what the message must say. */
const MISTAKES: readonly (readonly [string, string, RegExp])[] = [
  ['{ fqdn: a.example.com, port: 443 }', '.port', /did you mean ports\?/],
  ['{ fqdn: a.example.com, ports: 443, protcol: tcp }', '.protcol', /did you mean protocol\?/],
  ['{ fqdn: a.example.com, ports: 443, constructor: 1 }', '.constructor', /one of the keys/],
  ['{ fqdn: a.example.com, ports: "443" }', '.ports', /443 as a number, without quotes/],
  ['{ fqdn: a.example.com, ports: [80, "443"] }', '.ports[1]', /443 as a number, without quotes/],
  ['{ fqdn: a.example.com, ports: 0 }', '.ports', /from 1 to 65535/],
  ['{ fqdn: a.example.com, ports: 65536 }', '.ports', /from 1 to 65535/],
  ['{ fqdn: a.example.com, ports: 1.5 }', '.ports', /from 1 to 65535/],
  ['{ fqdn: a.example.com, ports: 0-80 }', '.ports', /ports from 1 to 65535/],
  ['{ fqdn: a.example.com, ports: 8100-8000 }', '.ports', /lower port first: "8000-8100"/],
  ['{ fqdn: a.example.com, ports: https }', '.ports', /8000-8100/],
  ['{ fqdn: a.example.com, ports: "*" }', '.ports', /"1-65535" for all ports/],
  ['{ fqdn: a.example.com, ports: [] }', '.ports', /at least one/],
  ['{ fqdn: a.example.com, ports: }', '.ports', /8000-8100/],
  ['{ fqdn: a.example.com, ports: [443, 443] }', '.ports[1]', /no entry twice.*\[0\]/],
  ['{ fqdn: a.example.com }', '.ports', /number, a range/],
  ['{ fqdn: [a.example.com, A.EXAMPLE.COM.], ports: 443 }', '.fqdn[1]', /twice: a\.example\.com.*\[0\]/],
  ['{ fqdn: "*.com", ports: 443 }', '.fqdn', /two labels or more behind the wildcard/],
  ['{ fqdn: com, ports: 443 }', '.fqdn', /two labels or more/],
  ['{ fqdn: "a.*.example.com", ports: 443 }', '.fqdn', /whole first label/],
  ['{ fqdn: "a*.example.com", ports: 443 }', '.fqdn', /whole first label/],
  ['{ fqdn: "https://a.example.com/x", ports: 443 }', '.fqdn', /URL: probably a\.example\.com/],
  ['{ fqdn: "a.example.com:443", ports: 443 }', '.fqdn', /ports stand in ports/],
  ['{ fqdn: 192.0.2.1, ports: 443 }', '.fqdn', /write ip: 192\.0\.2\.1/],
  ['{ fqdn: "2001:db8::1", ports: 443 }', '.fqdn', /write ip: 2001:db8::1/],
  ['{ fqdn: 192.0.2.0/24, ports: 443 }', '.fqdn', /write cidr: 192\.0\.2\.0\/24/],
  ['{ fqdn: 0x7f.1, ports: 443 }', '.fqdn', /does not end in a number/],
  ['{ fqdn: a..example.com, ports: 443 }', '.fqdn', /empty label/],
  ['{ fqdn: "a b.example.com", ports: 443 }', '.fqdn', /letters, digits/],
  [`{ fqdn: ${'a'.repeat(64)}.example.com, ports: 443 }`, '.fqdn', /63 characters/],
  [`{ fqdn: ${'abcdefg.'.repeat(32)}com, ports: 443 }`, '.fqdn', /253 characters/],
  ['{ fqdn: 7, ports: 443 }', '.fqdn', /name such as/],
  ['{ fqdn: [], ports: 443 }', '.fqdn', /at least one/],
  ['{ ip: 192.0.2.0/24, ports: 443 }', '.ip', /write cidr: 192\.0\.2\.0\/24/],
  ['{ ip: a.example.com, ports: 443 }', '.ip', /write fqdn: a\.example\.com/],
  ['{ ip: 0251.0376.0251.0376, ports: 443 }', '.ip', /without leading zeros/],
  ['{ ip: 169.254.43518, ports: 443 }', '.ip', /dotted quad/],
  ['{ ip: 2852039166, ports: 443 }', '.ip', /IP address such as/],
  ['{ ip: "fe80::1%eth0", ports: 443 }', '.ip', /IP address such as/],
  ['{ cidr: 10.1.2.3/8, ports: 443 }', '.cidr', /10\.0\.0\.0\/8 was meant/],
  ['{ cidr: "2001:db8::1/64", ports: 443 }', '.cidr', /2001:db8::\/64 was meant/],
  ['{ cidr: 10.0.0.0/33, ports: 443 }', '.cidr', /from 0 to 32/],
  ['{ cidr: 10.0.0.0, ports: 443 }', '.cidr', /write ip: 10\.0\.0\.0/],
  ['{ cidr: [10.0.0.0/8, "::ffff:10.0.0.0/104"], ports: 443 }', '.cidr[1]', /twice: 10\.0\.0\.0\/8/],
  ['{ fqdn: a.example.com, ip: 192.0.2.1, ports: 443 }', '.ip', /exactly one of fqdn, ip and cidr/],
  ['{ ports: 443 }', '', /exactly one of fqdn, ip and cidr/],
  ['{ fqdn: a.example.com, ports: 443, protocol: TCP }', '.protocol', /tcp in lower case/],
  ['{ fqdn: a.example.com, ports: 443, protocol: sctp }', '.protocol', /tcp, udp or icmp/],
  ['{ ip: 192.0.2.1, ports: 443, protocol: icmp }', '.ports', /ICMP has none/],
  ['{ fqdn: a.example.com, ports: 443, dnssec: on }', '.dnssec', /require, validate or off/],
  ['{ fqdn: a.example.com, ports: 443, dnssec: false }', '.dnssec', /require, validate or off/],
  ['{ ip: 192.0.2.1, ports: 443, dnssec: require }', '.dnssec', /fqdn rules only/],
  ['{ ip: 192.0.2.1, ports: 443, tls: sni }', '.tls', /fqdn rules only/],
  ['{ fqdn: a.example.com, ports: 443, tls: yes }', '.tls', /sni/],
  ['{ fqdn: a.example.com, ports: 443, protocol: [tcp, udp], tls: sni }', '.tls', /protocol is tcp/],
  ['{ fqdn: a.example.com, ports: 443, name: "egress.allow[0]" }', '.name', /up to 63 letters/],
  ['just a text', '', /mapping/],
];

test('each mistake of a rule: its path, its line and what to do', () => {
  for (const [rule, path, expected] of MISTAKES) {
    const problem = mistake(allow(rule));
    assert.equal(problem.path, `egress.allow[0]${path}`, rule);
    assert.match(problem.expected, expected, rule);
    assert.equal(problem.line, 4, rule);
  }
});

test('deny rules take no dnssec and no tls', () => {
  assert.match(mistake(deny('{ fqdn: a.example.com, dnssec: off }')).expected, /allow rules only/);
  assert.match(mistake(deny('{ fqdn: a.example.com, tls: sni }')).expected, /allow rules only/);
});

test('mistakes of the whole file', () => {
  assert.equal(mistake('').path, '');
  assert.deepEqual(
    mistakes('[]').map(({ path }) => path),
    ['', 'version'],
  );
  assert.equal(mistake('version: 1\negress: []').path, 'egress');
  assert.equal(mistake('egress: {}').path, 'version');
  assert.match(mistake('version: "1"').expected, /the number 1/);
  assert.match(mistake('version: 2').expected, /the number 1/);
  assert.match(mistake('version: 1\negres: {}').expected, /did you mean egress\?/);
  assert.match(mistake('version: 1\negress: { alow: [] }').expected, /did you mean allow\?/);
  assert.equal(mistake('version: 1\negress: { allow: {} }').path, 'egress.allow');
  assert.match(mistake('version: 1\nversion: 1').expected, /other is on line 1/);
});

test('ingress mistakes', () => {
  const ingress = (entry: string): Problem => mistake(`version: 1\ningress:\n  - ${entry}`);
  assert.match(ingress('{ port: 443, to: localhost:8443 }').expected, /names are not resolved/);
  assert.match(ingress('{ port: 443, to: 127.0.0.1 }').expected, /127\.0\.0\.1:8443/);
  assert.match(ingress('{ port: "443", to: 127.0.0.1:1 }').expected, /443 as a number, without quotes/);
  assert.equal(ingress('{ to: 127.0.0.1:1 }').path, 'ingress[0].port');
  assert.equal(ingress('{ port: 443 }').path, 'ingress[0].to');
  assert.equal(ingress('{ port: 443, to: 127.0.0.1:0 }').path, 'ingress[0].to');
  assert.match(
    ingress('{ port: 443, to: 127.0.0.1:1, proxyprotocol: v2 }').expected,
    /did you mean proxyProtocol\?/,
  );
  assert.equal(ingress('{ port: 443, to: 127.0.0.1:1, proxyProtocol: v1 }').expected, 'v2');
  assert.match(
    ingress('{ port: 443, to: 127.0.0.1:1, protocol: udp, proxyProtocol: v2 }').expected,
    /tcp only/,
  );
  assert.match(
    ingress('{ port: 443, to: 127.0.0.1:1, from: [10.0.0.1/8] }').expected,
    /10\.0\.0\.0\/8 was meant/,
  );
});

test('a name that starts with a star and has no quotes', () => {
  for (const rule of [
    '{ fqdn: *.example.com, ports: 443 }',
    '\n      fqdn: *.example.com\n      ports: 443',
  ]) {
    const [first] = mistakes(allow(rule));
    assert.match(first?.expected ?? '', /quotes around.*"\*\.example\.com"/);
  }
});

test('conflicts name both entries', () => {
  const file = `version: 1
egress:
  allow:
    - { name: api, fqdn: a.example.com, ports: 443 }
    - { fqdn: b.a.example.org, ports: [443, 8443] }
    - { cidr: 10.1.0.0/16, ports: 5432 }
    - { cidr: [10.1.0.0/16, 192.0.2.0/24], ports: 5432 }
    - { fqdn: A.example.com., ports: "443-443" }
  deny:
    - { name: api, fqdn: "**.example.org", ports: "1-9000" }
    - { cidr: 10.0.0.0/8 }
ingress:
  - { port: 443, to: 127.0.0.1:1 }
  - { port: 443, to: 127.0.0.1:2 }
  - { port: 443, to: 127.0.0.1:3, protocol: udp }`;
  const found = mistakes(file).map(({ path, line, expected }) => `${path} ${line}: ${expected}`);
  assert.deepEqual(found, [
    'egress.allow[1] 5: something left to allow: change egress.allow[1] or egress.deny[0]',
    'egress.allow[2] 6: something left to allow: change egress.allow[2] or egress.deny[1]',
    'egress.allow[4] 8: each rule once: remove egress.allow[4] or egress.allow[0]',
    'egress.deny[0].name 10: a name of its own: egress.allow[0] has this one',
    'ingress[1].port 14: a service port of its own: ingress[0] has this one',
  ]);
});

test('what a deny rule covers: patterns, blocks, ports and protocols', () => {
  const shadowed = (allowed: string, denied: string): boolean => {
    try {
      parsePolicy(`version: 1\negress:\n  allow: [${allowed}]\n  deny: [${denied}]`, 'p');
      return false;
    } catch {
      return true;
    }
  };
  const a = '{ fqdn: "*.a.example.com", ports: 443 }';
  assert.ok(shadowed(a, '{ fqdn: "*.a.example.com" }'));
  assert.ok(shadowed(a, '{ fqdn: "**.a.example.com" }'));
  assert.ok(shadowed(a, '{ fqdn: "**.example.com" }'));
  assert.ok(!shadowed(a, '{ fqdn: "*.example.com" }'));
  assert.ok(!shadowed(a, '{ fqdn: a.example.com }'));
  assert.ok(!shadowed(a, '{ fqdn: "**.a.example.com", ports: 80 }'));
  assert.ok(!shadowed('{ fqdn: "**.a.example.com", ports: 443 }', '{ fqdn: "*.a.example.com" }'));
  assert.ok(!shadowed('{ fqdn: [x.example.com, y.example.org], ports: 443 }', '{ fqdn: x.example.com }'));
  assert.ok(!shadowed('{ cidr: 10.0.0.0/8, ports: 443 }', '{ cidr: 10.0.0.0/9 }'));
  assert.ok(
    shadowed('{ cidr: "2001:db8:1::/48", ports: 443 }', '{ cidr: "2001:db8::/32", ports: "400-500" }'),
  );
  assert.ok(
    !shadowed('{ cidr: 10.0.0.0/8, ports: 1, protocol: [tcp, icmp] }', '{ cidr: 10.0.0.0/8, ports: 1 }'),
  );
});

test('mistakes of shape and conflicts come in one report, in the order of the file', () => {
  const file = `version: 1
egress:
  allow:
    - { name: x, fqdn: a.example.com, port: 443 }
    - { name: y, fqdn: b.example.com, ports: 443 }
    - { name: y, fqdn: c.example.com, ports: "443", prtocol: tcp }
    - { name: y, fqdn: d.example.com, ports: 443 }
foo: 1
bar: 2`;
  assert.deepEqual(
    mistakes(file).map(({ path, line }) => `${path} ${line}`),
    [
      'egress.allow[0].port 4',
      'egress.allow[2].prtocol 6',
      'egress.allow[2].ports 6',
      'egress.allow[3].name 7',
      'foo 8',
      'bar 9',
    ],
  );
});

test('the operator’s guard has the same rules without names', () => {
  const parse = (text: string) => parseConfig(text, 'g', guardSchema, egressConflicts);
  const guard = parse('{ allow: [{ cidr: 0.0.0.0/0, ports: 443 }], deny: [{ ip: 192.0.2.1 }] }');
  assert.equal(guard.allow[0]?.label, 'guard.allow[0]');
  const [problem] = problemsOf(() => parse('allow: [{ fqdn: a.example.com, ports: 443 }]'));
  assert.equal(problem?.path, 'allow[0].fqdn');
});
