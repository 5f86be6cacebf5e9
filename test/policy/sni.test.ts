import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideServerName } from '../../shared/policy/sni.ts';
import { ClientHelloReader } from '../../shared/tls/client-hello.ts';
import { extension, message, records, serverName } from '../tls/hellos.ts';

const NAMES = ['api.example.com', 'xn--bcher-kva.example'];

/** What becomes of a flow whose first bytes are these: the verdict, and the reason of a refusal. */
function judge(bytes: Buffer): string {
  const decision = decideServerName(NAMES, new ClientHelloReader().push(bytes));
  return decision.verdict === 'deny' ? decision.reason : decision.verdict;
}

const hello = (...extensions: readonly Buffer[]): Buffer => records(message({ extensions }), 100);

test('a flow goes on when its ClientHello holds one of the names, in any spelling', () => {
  for (const name of ['api.example.com', 'API.EXAMPLE.COM', 'api.example.com.', 'XN--BCHER-KVA.example']) {
    assert.equal(judge(hello(serverName(name))), 'allow', name);
  }
  assert.equal(judge(hello(serverName('api.example.com')).subarray(0, 60)), 'more');
  assert.equal(judge(Buffer.alloc(0)), 'more');
});

test('every other first flight ends it, with a reason', () => {
  assert.equal(judge(Buffer.from('GET / HTTP/1.1\r\n')), 'sni-not-tls');
  assert.equal(judge(hello()), 'sni-missing');
  assert.equal(judge(hello(serverName('evil.example.com'))), 'sni-other-name');
  assert.equal(judge(hello(serverName('api.example.com.evil.test'))), 'sni-other-name');
  assert.equal(judge(hello(serverName('192.0.2.1'))), 'sni-malformed');
  const twice = [serverName('api.example.com'), serverName('evil.example.com')];
  assert.equal(judge(hello(...twice)), 'sni-malformed');
  assert.equal(judge(hello(...twice.reverse())), 'sni-malformed');
  assert.equal(judge(hello(serverName('api.example.com', 'evil.example.com'))), 'sni-malformed');
});

test('Encrypted Client Hello hides which site is meant, whatever name stands outside', () => {
  const hidden = extension(0xfe0d, Buffer.alloc(40));
  assert.equal(judge(hello(serverName('api.example.com'), hidden)), 'sni-encrypted');
  assert.equal(judge(hello(hidden)), 'sni-missing');
});
