import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { retryDelayMs } from '../../guest/session/backoff.ts';
import { findAccount } from '../../guest/workload/account.ts';
import { proxyEnvironment } from '../../guest/workload/environment.ts';
import { scratch } from './fake-parent.ts';

describe('whom the workload runs as', () => {
  let folder: string;
  let remove: () => Promise<void>;
  before(async () => {
    ({ folder, remove } = await scratch());
    await writeFile(
      join(folder, 'passwd'),
      'root:x:0:0::/:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\nbroken:x:abc:1::/:/x\n',
    );
    await writeFile(join(folder, 'group'), 'root:x:0:\nweb:x:2000:app\n');
  });
  after(() => remove());

  const found: [config: { user?: string | number; group?: string | number }, expected: object | undefined][] =
    [
      [{}, undefined],
      [{ user: 'app' }, { uid: 1000, gid: 1001 }],
      [{ user: 1000 }, { uid: 1000, gid: 1001 }],
      [
        { user: 'app', group: 'web' },
        { uid: 1000, gid: 2000 },
      ],
      [
        { user: 4242, group: 4343 },
        { uid: 4242, gid: 4343 },
      ],
      [{ group: 'web' }, { uid: process.geteuid?.(), gid: 2000 }],
    ];
  for (const [config, expected] of found) {
    it(`${JSON.stringify(config)} is ${JSON.stringify(expected)}`, async () => {
      assert.deepEqual(await findAccount(config, folder), expected);
    });
  }

  for (const config of [
    { user: 'nobody-here' },
    { user: 4242 },
    { user: 'app', group: 'none' },
    { user: 'broken' },
  ]) {
    it(`${JSON.stringify(config)} is refused`, async () => {
      await assert.rejects(findAccount(config, folder), { code: 'ERR_WORKLOAD_ACCOUNT' });
    });
  }
});

describe('the workload’s proxy variables', () => {
  it('name what is there, in both cases', () => {
    const socks5 = { host: '127.0.0.1', port: 1080 };
    const http = { host: '::1', port: 3128 };
    const both = proxyEnvironment({ socks5, http });
    assert.equal(both['ALL_PROXY'], 'socks5h://127.0.0.1:1080');
    assert.equal(both['https_proxy'], 'http://[::1]:3128');
    assert.equal(both['no_proxy'], 'localhost,127.0.0.1,::1');
    assert.deepEqual(Object.keys(proxyEnvironment({ http })).sort(), [
      'HTTPS_PROXY',
      'HTTP_PROXY',
      'NO_PROXY',
      'http_proxy',
      'https_proxy',
      'no_proxy',
    ]);
    assert.deepEqual(proxyEnvironment({}), {});
  });
});

describe('the pace of retries', () => {
  it('doubles to its cap, and never comes in step', () => {
    for (const [code, firstMs, maxMs] of [
      ['ERR_TRANSPORT_REFUSED', 100, 5_000],
      ['ERR_SESSION_TAKEN', 1_000, 30_000],
    ] as const) {
      let previousMs = 0;
      for (let attempt = 0; attempt < 2_000; attempt += 1) {
        const highMs = retryDelayMs(attempt, code, () => 1);
        const lowMs = retryDelayMs(attempt, code, () => 0);
        assert.ok(highMs >= previousMs && highMs <= maxMs && lowMs >= firstMs / 2);
        assert.ok(Math.abs(lowMs - highMs / 2) <= 1);
        previousMs = highMs;
      }
      assert.equal(previousMs, maxMs);
    }
  });
});
