import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as v from 'valibot';
import { prefixOf, type VolumesConfig, volumeProblems, volumesSchema } from '../../../guest/disk/config.ts';
import { withoutKeys } from '../../../guest/disk/disks.ts';
import { limitsFor } from '../../../guest/disk/memory.ts';
import { assertMode } from '../../../guest/disk/mode.ts';
import { checkLimits, DEFAULT_LIMITS } from '../../../guest/volume/limits.ts';

const MIB = 1024 * 1024;
const GOOD = { key: { file: '/k' }, anchor: { file: '/a' }, nbd: { socket: '/run/data.nbd' } };

function parse(volumes: Record<string, object>): VolumesConfig {
  return v.parse(volumesSchema, volumes);
}
function paths(volumes: Record<string, object>): string[] {
  return volumeProblems(parse(volumes)).map(({ path }) => path);
}

describe('the volumes of a guest’s configuration', () => {
  it('have defaults that weaken nothing', () => {
    const { data } = parse({ data: GOOD });
    assert.ok(data);
    assert.deepEqual(data.mode, { kind: 'strict' });
    assert.equal(data.takeover, false);
    assert.equal(data.memoryBytes, 256 * MIB);
    assert.equal(prefixOf('data', data), 'data');
    assert.deepEqual(paths({ data: GOOD }), []);
  });

  for (const [what, change] of Object.entries({
    'two keys': { key: { file: '/k', env: 'KEY' } },
    'no key': { key: undefined },
    'a relative path': { key: { file: 'k' } },
    'a variable that is none': { key: { env: 'not one' } },
    'nowhere to serve it': { nbd: {} },
    'another device': { nbd: { device: '/dev/sda' } },
    'a prefix with a slash at its end': { prefix: 'web/' },
    'a prefix that climbs': { prefix: '../web' },
    'an unknown mode': { mode: 'fast' },
    'a lazy mode without bounds': { mode: { lazy: { maxMs: 0, maxCommits: 1 } } },
    'too little memory': { memoryBytes: MIB },
    'an unknown key': { size: '1G' },
  })) {
    it(`refuse ${what}`, () => {
      assert.equal(v.safeParse(volumesSchema, { data: { ...GOOD, ...change } }).success, false);
    });
  }

  it('need an anchor unless they are of mode none, and none then', () => {
    assert.deepEqual(paths({ data: { ...GOOD, anchor: undefined } }), ['volumes.data.anchor']);
    assert.deepEqual(paths({ data: { ...GOOD, mode: 'none' } }), ['volumes.data.anchor']);
    assert.deepEqual(paths({ data: { ...GOOD, mode: 'none', anchor: undefined } }), []);
  });

  it('share neither socket, device nor keys', () => {
    const other = (change: object) => ({
      data: GOOD,
      logs: { ...GOOD, nbd: { socket: '/run/logs' }, ...change },
    });
    assert.deepEqual(paths(other({})), []);
    assert.deepEqual(paths(other({ nbd: GOOD.nbd })), ['volumes.logs.nbd.socket']);
    assert.deepEqual(paths(other({ prefix: 'data' })), ['volumes.logs.prefix']);
    assert.deepEqual(paths(other({ prefix: 'data/logs' })), ['volumes.logs.prefix']);
    const device = { nbd: { device: '/dev/nbd0' } };
    const devices = paths({ data: { ...GOOD, ...device }, logs: { ...GOOD, ...device } });
    assert.deepEqual(devices, ['volumes.logs.nbd.device']);
    const free = { nbd: { device: 'auto' } };
    assert.deepEqual(paths({ data: { ...GOOD, ...free }, logs: { ...GOOD, ...free } }), []);
  });

  it('keep their keys from the workload', () => {
    const volumes = parse({ data: { ...GOOD, key: { env: 'DATA_KEY' } } });
    assert.deepEqual(withoutKeys({ DATA_KEY: 'secret', LANG: 'C' }, volumes), { LANG: 'C' });
  });

  it('give the engine limits that it works within, whatever the memory', () => {
    assert.deepEqual(limitsFor(256 * MIB), DEFAULT_LIMITS);
    for (const mebibytes of [64, 65, 100, 128, 256, 300, 1024, 65_536]) {
      const limits = limitsFor(mebibytes * MIB);
      checkLimits(limits);
      const { dirtyBytes, readCacheBytes, pageCacheBytes, segmentBytes, largePuts } = limits;
      const held = dirtyBytes + readCacheBytes + pageCacheBytes + segmentBytes * largePuts;
      assert.ok(held <= mebibytes * MIB, `${mebibytes} MiB`);
    }
  });

  it('are of the mode that they were made with', () => {
    assertMode('data', { kind: 'strict' }, { kind: 'strict' });
    const lazy = { kind: 'lazy', maxMs: 10, maxCommits: 2 } as const;
    assertMode('data', lazy, lazy);
    assert.throws(() => assertMode('data', { kind: 'none' }, { kind: 'strict' }), {
      code: 'ERR_CONFIG_INVALID',
    });
    assert.throws(() => assertMode('data', lazy, { ...lazy, maxCommits: 3 }), { code: 'ERR_CONFIG_INVALID' });
  });
});
