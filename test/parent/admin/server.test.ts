import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { test } from 'node:test';
import { release } from '../../../parent/admin/release.ts';
import { TestAgent } from '../agent.ts';
import { portOf, type Started, startParent, tcpServer, until } from '../setup.ts';

interface Answer {
  readonly status: number;
  readonly text: string;
}

async function ask(
  started: Started,
  path: string,
  method = 'GET',
  headers: Record<string, string> = {},
): Promise<Answer> {
  const port = portOf(started, 'admin');
  const call = request({ host: '127.0.0.1', port, path, method, headers, agent: false }).end();
  const [response] = await once(call, 'response');
  let text = '';
  for await (const piece of response.setEncoding('utf8')) text += piece;
  return { status: response.statusCode, text };
}

test('shows health, readiness and metrics', async (t) => {
  const started = await startParent(t, { web: {}, other: {} });
  assert.deepEqual(await ask(started, '/healthz'), { status: 200, text: 'ok\n' });
  assert.deepEqual(await ask(started, '/readyz'), { status: 200, text: 'ready\n' });
  const port = await tcpServer(t, (client) => client.pipe(client));
  const agent = await TestAgent.register(started.tunnel('web'));
  const { stream } = await agent.open(port, ['127.0.0.1'], Buffer.from('12345'));
  await once(stream, 'readable');
  const { status, text } = await ask(started, '/metrics');
  assert.equal(status, 200);
  const has = (line: string) => assert.ok(text.split('\n').includes(`postern_parent_${line}`), line);
  // Of a flow that lives.
  has('bytes_total{guest="web",direction="out"} 5');
  has('bytes_total{guest="web",direction="in"} 5');
  has('egress_flows{guest="web"} 1');
  has('session_live{guest="web"} 1');
  has('session_live{guest="other"} 0');
  has('opens_total{guest="web",direction="egress",outcome="ok"} 1');
  has('dial_seconds_count{guest="web"} 1');
  assert.match(text, /postern_parent_build_info\{version="test",node="v\d+/);
  assert.equal(/127\.0\.0\.1/.test(text), false, 'no address is a label');
});

test('releases a guest for a caller on the same host, and for no web page', async (t) => {
  const started = await startParent(t);
  const agent = await TestAgent.register(started.tunnel('web'));
  const path = '/guests/web/release';
  assert.equal((await ask(started, path)).status, 405);
  assert.equal((await ask(started, path, 'POST', { origin: 'http://pages.example' })).status, 403);
  assert.equal((await ask(started, '/guests/nobody/release', 'POST')).status, 404);
  assert.equal(agent.control.destroyed, false);
  const admin = { host: '127.0.0.1', port: portOf(started, 'admin') };
  assert.equal(await release('web', admin), 'released web\n');
  await TestAgent.register(started.tunnel('web'));
  await assert.rejects(release('nobody', admin), {
    code: 'ERR_ADMIN_FAILED',
    message: /404 no guest nobody/,
  });
  await started.parent.close();
  await assert.rejects(release('web', admin), {
    code: 'ERR_ADMIN_FAILED',
    message: /ECONNREFUSED|socket hang up/,
  });
});

test('answers what it does not know, and is not held up by what never ends', async (t) => {
  const started = await startParent(t);
  assert.equal((await ask(started, '/')).status, 404);
  assert.equal((await ask(started, '/metrics', 'DELETE')).status, 405);
  assert.equal((await ask(started, `/${'x'.repeat(9000)}`)).status, 431);
  const port = portOf(started, 'admin');
  const slow = connect({ port, host: '127.0.0.1' }).on('error', () => {});
  slow.write('GET /healthz HTTP/1.1\r\n');
  let answer = '';
  slow.setEncoding('utf8').on('data', (piece) => {
    answer += piece;
  });
  await once(slow, 'close');
  assert.match(answer, /^HTTP\/1\.1 408 /);
});

test('is not ready while it drains, and still answers', async (t) => {
  const started = await startParent(t);
  const port = await tcpServer(t, (client) => client.resume().on('end', () => client.end()));
  const agent = await TestAgent.register(started.tunnel('web'));
  const { stream } = await agent.open(port);
  const drained = started.parent.drain(60_000);
  await agent.frame('goaway');
  assert.deepEqual(await ask(started, '/readyz'), { status: 503, text: 'draining\n' });
  stream.destroy();
  await drained;
  await until(() => started.parent.whereIs('admin') === undefined, 'the admin endpoint is closed');
});
