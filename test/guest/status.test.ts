import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { lstat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { VolumeOrder } from '../../guest/status/order.ts';
import { formatReport } from '../../guest/status/report.ts';
import { askStatus, giveOrder, serveStatus } from '../../guest/status/socket.ts';
import { PosternError } from '../../shared/errors.ts';
import { type Fixture, listenTcp, startFixture } from './agent-fixture.ts';
import { scratch } from './fake-parent.ts';
import { socksConnect } from './socks-client.ts';

describe('the status socket', () => {
  let fixture: Fixture;
  let folder: string;
  let remove: () => Promise<void>;
  before(async () => {
    ({ folder, remove } = await scratch());
    fixture = await startFixture({ policy: 'egress: {allow: [{name: web, ip: 192.0.2.7, ports: 80}]}' });
  });
  after(async () => {
    await fixture.close();
    await remove();
  });

  it('tells of session, flows and refusals', async () => {
    const echo = await listenTcp((socket) => socket.pipe(socket));
    fixture.parent.route('192.0.2.7', 80, echo.server);
    const { socket } = await socksConnect(fixture.socksPort, '192.0.2.7', 80);
    socket.write('12345');
    await once(socket, 'data');
    (await socksConnect(fixture.socksPort, '192.0.2.8', 80)).socket.destroy();
    const path = join(fixture.folder, 'run', 'guest.sock');
    assert.equal((await lstat(path)).mode & 0o777, 0o600);
    const report = await askStatus(path);
    assert.equal(report.session.phase, 'up');
    assert.equal(report.flows.count, 1);
    const [flow] = report.flows.shown;
    assert.deepEqual(
      [flow?.via, flow?.to, flow?.rule, flow?.sentBytes, flow?.receivedBytes],
      ['socks5', '192.0.2.7 port 80', 'web', 5, 5],
    );
    assert.deepEqual(report.refusals, { 'no-rule': 1 });
    const text = formatReport(report);
    assert.match(text, /session {4}up/);
    assert.match(text, /socks5 to 192\.0\.2\.7 port 80: 5 out, 5 in/);
    assert.match(text, /1 {2}no-rule/);
    socket.destroy();
    echo.close();
  });

  it('replaces what a killed agent left, not one that lives', async () => {
    const path = join(folder, 'left.sock');
    const left = createServer();
    left.listen(path);
    await once(left, 'listening');
    const report = {
      report: () => fixture.agent.report(),
      carryOut: () => Promise.reject(new PosternError('ERR_VOLUME_CLOSED', 'no such volume')),
    };
    await assert.rejects(serveStatus(path, report), { code: 'ERR_TRANSPORT_IN_USE' });
    left.close();
    // What SIGKILL leaves: a socket file that nobody listens at.
    const dead = spawnSync(process.execPath, [
      '-e',
      `net.createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`,
    ]);
    assert.equal(dead.signal, 'SIGKILL');
    assert.ok((await lstat(path)).isSocket());
    const server = await serveStatus(path, report);
    assert.equal((await askStatus(path)).version, 1);
    const order = { order: 'resize', volume: 'data', sizeBytes: 4096 } as const;
    await assert.rejects(giveOrder(path, order), { code: 'ERR_VOLUME_CLOSED', message: 'no such volume' });
    for (const bad of [{ ...order, sizeBytes: -1 }, { ...order, more: 1 }, { order: 'format' }, 7]) {
      await assert.rejects(giveOrder(path, bad as VolumeOrder), { code: 'ERR_WIRE_MALFORMED' });
    }
    // Too much is not read to its end.
    const long = { ...order, volume: 'x'.repeat(100_000) };
    await assert.rejects(giveOrder(path, long), { code: 'ERR_TRANSPORT_REFUSED' });
    assert.equal((await askStatus(path)).version, 1);
    server.close();
  });

  it('says so where nobody answers, or somebody else', async () => {
    await assert.rejects(askStatus(join(folder, 'nobody.sock')), { code: 'ERR_TRANSPORT_REFUSED' });
    const path = join(folder, 'other.sock');
    const other = createServer((socket) => socket.end('not json'));
    other.listen(path);
    await once(other, 'listening');
    await assert.rejects(askStatus(path), { code: 'ERR_TRANSPORT_REFUSED' });
    other.close();
  });
});
