import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { encodeSocksReply } from '../../guest/proxy/socks5.ts';
import { converse } from './socks-conversation.ts';

const GREETING = '050100';
const good: [name: string, hex: string, host: string, port: number, command: string][] = [
  ['IPv4', '05010001 c0000207 01bb'.replaceAll(' ', ''), '192.0.2.7', 443, 'connect'],
  [
    'IPv6',
    '05010004 20010db8000000000000000000000007 0050'.replaceAll(' ', ''),
    '2001:db8::7',
    80,
    'connect',
  ],
  ['a name', '05010003 0b 6578616d706c652e636f6d 01bb'.replaceAll(' ', ''), 'example.com', 443, 'connect'],
  ['an empty name', '05010003 00 01bb'.replaceAll(' ', ''), '', 443, 'connect'],
  ['a name of 255 octets', `05010003ff${'61'.repeat(255)}01bb`, 'a'.repeat(255), 443, 'connect'],
  ['BIND', '05020001c000020701bb', '192.0.2.7', 443, 'bind'],
  ['UDP ASSOCIATE', '05030001000000000000', '0.0.0.0', 0, 'udp-associate'],
];

describe('the SOCKS5 handshake (RFC 1928)', () => {
  for (const [name, hex, host, port, command] of good) {
    it(`reads ${name}, whole, a byte at a time and with data behind it`, () => {
      const bytes = Buffer.from(GREETING + hex, 'hex');
      const data = Buffer.from('first data');
      const whole = converse([Buffer.concat([bytes, data])]);
      assert.equal(whole.answers, '0500');
      assert.deepEqual(whole.last, { kind: 'request', request: { command, host, port }, rest: data });
      const single = converse([...bytes, ...data].map((byte) => Buffer.from([byte])));
      assert.deepEqual(single, whole);
      for (let cut = 0; cut < bytes.length; cut += 1) {
        assert.equal(converse([bytes.subarray(0, cut)]).last.kind, 'more', `cut at ${cut}`);
      }
    });
  }

  const bad: [name: string, hex: string, reply: string][] = [
    ['SOCKS4', '0401', ''],
    ['HTTP', Buffer.from('GET / HTTP/1.1').toString('hex'), ''],
    ['no acceptable method', '050102', '05ff'],
    ['no method at all', '0500', '05ff'],
    ['a request of version 4', `${GREETING}0401`, ''],
    ['command 9', `${GREETING}05090001`, encodeSocksReply('commandNotSupported').toString('hex')],
    ['a reserved byte', `${GREETING}05010101`, encodeSocksReply('failure').toString('hex')],
    ['address type 2', `${GREETING}0501000200`, encodeSocksReply('addressTypeNotSupported').toString('hex')],
  ];
  for (const [name, hex, reply] of bad) {
    it(`sends away ${name}`, () => {
      const { last } = converse([Buffer.from(hex, 'hex')]);
      assert.equal(last.kind, 'close');
      assert.equal(last.kind === 'close' && last.bytes.toString('hex'), reply);
    });
  }
});
