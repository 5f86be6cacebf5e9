import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeSocksDatagram, encodeSocksDatagram } from '../../guest/proxy/socks5-datagram.ts';
import { DATAGRAM_MAX_BYTES } from '../../shared/wire/datagram.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

const good: [name: string, bytes: string, host: string, port: number, payload: string][] = [
  ['IPv4', '0000 00 01 c0000207 0035 6869', '192.0.2.7', 53, 'hi'],
  ['IPv6', '0000 00 04 20010db8000000000000000000000007 0035', '2001:db8::7', 53, ''],
  ['a name', '0000 00 03 0b 6578616d706c652e636f6d 01bb 00', 'example.com', 443, '\0'],
  ['a name of 255 octets', `0000 00 03 ff ${'61'.repeat(255)} 01bb`, 'a'.repeat(255), 443, ''],
];

for (const [name, bytes, host, port, payload] of good) {
  test(`reads ${name}, and no truncation of its header`, () => {
    const whole = hex(bytes);
    assert.deepEqual(decodeSocksDatagram(whole), { host, port, payload: Buffer.from(payload) });
    for (let length = 0; length < whole.length - payload.length; length += 1)
      assert.equal(decodeSocksDatagram(whole.subarray(0, length)), undefined, `${length} bytes`);
  });
}

test('drops fragments, reserved bytes, other types, an empty name and port 0', () => {
  for (const bad of [
    '0000 01 01 c0000207 0035',
    '0000 80 01 c0000207 0035',
    '0100 00 01 c0000207 0035',
    '0000 00 02 c0000207 0035',
    '0000 00 03 00 0035 0035 0035',
    '0000 00 01 c0000207 0000',
  ])
    assert.equal(decodeSocksDatagram(hex(bad)), undefined, bad);
});

test('drops a payload that no frame carries, as IPv6 to this machine does', () => {
  const withPayload = (byteCount: number): Buffer =>
    Buffer.concat([hex('0000 00 01 c0000207 0035'), Buffer.alloc(byteCount)]);
  assert.equal(decodeSocksDatagram(withPayload(DATAGRAM_MAX_BYTES))?.payload.length, DATAGRAM_MAX_BYTES);
  assert.equal(decodeSocksDatagram(withPayload(DATAGRAM_MAX_BYTES + 1)), undefined);
});

test('an answer carries the address that it came from', () => {
  for (const address of ['192.0.2.7', '2001:db8::7']) {
    const bytes = encodeSocksDatagram({ address, port: 53 }, Buffer.from('hi'));
    assert.deepEqual(decodeSocksDatagram(bytes), { host: address, port: 53, payload: Buffer.from('hi') });
  }
});
