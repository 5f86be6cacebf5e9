import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { createMetricsServer, metricsOf } from '../../guest/status/metrics.ts';
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

  it('show what each volume is and does', async () => {
    const stats = { commits: 7, spills: 1, checkpoints: 2, repackedSegments: 0, deletedObjects: 3, puts: 11 };
    const bytes = { putBytes: 9000, gets: 5, getBytes: 8000, unsettledBytes: 4096, anchoredSeq: 42 };
    const volume = {
      name: 'data',
      state: 'serving',
      sizeBytes: 1024,
      epoch: 3,
      stats: { ...stats, ...bytes },
    };
    const text = await metricsOf({ ...fixture.agent.report(), volumes: [volume] });
    for (const [name, value] of [
      ['serving', 1],
      ['bytes', 1024],
      ['commits', 7],
      ['put_bytes', 9000],
      ['unsettled_bytes', 4096],
      ['anchored_seq', 42],
    ]) {
      assert.match(text, new RegExp(`^postern_guest_volume_${name}\\{volume="data"\\} ${value}$`, 'm'));
    }
  });

  it('answer health and readiness, and nothing else', async () => {
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
    assert.equal((await fetch(`${url}/readyz`)).status, 200);
    assert.equal((await fetch(`${url}/flows`)).status, 404);
    assert.equal((await fetch(`${url}/metrics`, { method: 'DELETE' })).status, 405);
  });
});
