import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { createMetricsServer } from '../../guest/status/metrics.ts';
import { type Fixture, startFixture } from './agent-fixture.ts';
import { socksConnect } from './socks-client.ts';

describe('the guest’s metrics', () => {
  let fixture: Fixture;
  let url = '';
  let close = (): void => {};
  before(async () => {
    fixture = await startFixture({ policy: 'egress: {allow: [{ip: 192.0.2.7, ports: 443}]}' });
    const server = createMetricsServer(() => fixture.agent.report()).listen(0, '127.0.0.1');
    await once(server, 'listening');
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    close = () => {
      server.closeAllConnections();
      server.close();
    };
  });
  after(async () => {
    close();
    await fixture.close();
  });

  it('show the session and refusals by reason, in Prometheus’s text', async () => {
    const { socket } = await socksConnect(fixture.socksPort, '192.0.2.8', 443);
    socket.destroy();
    const text = await (await fetch(`${url}/metrics`)).text();
    assert.match(
      text,
      /^# HELP postern_guest_session_up .+\n# TYPE postern_guest_session_up gauge\npostern_guest_session_up 1$/m,
    );
    assert.match(text, /^postern_guest_flows_refused 1$/m);
    assert.match(text, /^postern_guest_refusals\{reason="no-[a-z]+"\} 1$/m);
  });

  it('answer health and readiness, and nothing else', async () => {
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
    assert.equal((await fetch(`${url}/readyz`)).status, 200);
    assert.equal((await fetch(`${url}/flows`)).status, 404);
    assert.equal((await fetch(`${url}/metrics`, { method: 'DELETE' })).status, 405);
  });
});
