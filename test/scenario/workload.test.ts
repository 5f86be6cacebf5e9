import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FakeParent, scratch } from '../guest/fake-parent.ts';

const POSTERN = fileURLToPath(new URL('../../shared/cli/postern.ts', import.meta.url));
const isRoot = process.geteuid?.() === 0;

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

describe('postern guest -- CMD', () => {
  let folder: string;
  let remove: () => Promise<void>;
  let parent: FakeParent;
  let config: string;
  const running = new Set<ChildProcess>();

  before(async () => {
    ({ folder, remove } = await scratch());
    parent = new FakeParent(folder);
    await parent.listen();
    config = await configure('guest', parent.path);
  });
  after(async () => {
    for (const child of running) child.kill('SIGKILL');
    await parent.close();
    await remove();
  });

  async function configure(name: string, parentPath: string, workload = '{}'): Promise<string> {
    const file = join(folder, `${name}.yaml`);
    await writeFile(
      file,
      `version: 1
parent: unix:${parentPath}
policy: {version: 1, egress: {allow: [{ip: 192.0.2.7, ports: 80}]}}
sessionKey: ${join(folder, name, 'session.key')}
proxies: {socks5: "127.0.0.1:0", http: "127.0.0.1:0"}
workload: ${workload}
log: {format: json}
`,
    );
    return file;
  }

  function start(words: readonly string[], file = config): { child: ChildProcess; ended: Promise<Ended> } {
    const child = spawn(process.execPath, [POSTERN, 'guest', '--config', file, '--', ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FROM_OUTSIDE: 'yes' },
    });
    running.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout?.on('data', (piece) => {
      stdout += String(piece);
      child.emit('said', stdout);
    });
    child.stderr?.on('data', (piece) => {
      stderr += String(piece);
    });
    const ended = once(child, 'close').then(([code]) => {
      running.delete(child);
      return { code: code as number | null, stdout, stderr };
    });
    return { child, ended };
  }

  async function said(child: ChildProcess, text: string): Promise<void> {
    for (;;) {
      const [stdout] = await once(child, 'said');
      if (String(stdout).includes(text)) return;
    }
  }

  it('runs the workload behind the gate and exits with its code', async () => {
    const { code, stdout } = await start([
      'sh',
      '-c',
      'echo "$ALL_PROXY $http_proxy $NO_PROXY $FROM_OUTSIDE"; exit 42',
    ]).ended;
    assert.equal(code, 42);
    assert.match(
      stdout,
      /^socks5h:\/\/127\.0\.0\.1:\d+ http:\/\/127\.0\.0\.1:\d+ localhost,127\.0\.0\.1,::1 yes\n$/,
    );
  });

  it('exits with 128 and the signal that ended the workload', async () => {
    assert.equal((await start(['sh', '-c', 'kill -SEGV $$']).ended).code, 128 + 11);
  });

  it('exits with 127 and 126 as a shell does', async () => {
    assert.equal((await start(['no-such-command-here']).ended).code, 127);
    assert.equal((await start([config]).ended).code, 126);
  });

  it('passes signals on', async () => {
    const script =
      'for s in TERM INT HUP USR1 USR2; do trap "echo got $s" $s; done; trap "exit 9" QUIT; echo ready; while :; do sleep 0.05; done';
    const { child, ended } = start(['sh', '-c', script]);
    await said(child, 'ready');
    for (const signal of ['TERM', 'INT', 'HUP', 'USR1', 'USR2'] as const) {
      child.kill(`SIG${signal}`);
      await said(child, `got ${signal}`);
    }
    child.kill('SIGQUIT');
    assert.equal((await ended).code, 9);
  });

  it('never starts the workload without a gate', async () => {
    const marker = join(folder, 'must-not-exist');
    const file = await configure('gateless', join(folder, 'nobody.sock'), '{gateTimeoutSeconds: 1}');
    const { code, stderr } = await start(['touch', marker], file).ended;
    assert.equal(code, 1);
    assert.match(stderr, /the gate did not come up in 1 s, the workload is not started/);
    await assert.rejects(access(marker));
  });

  it('stops at once when told to before the gate is up', async () => {
    const file = await configure('waiting', join(folder, 'nobody.sock'));
    const { child, ended } = start(['true'], file);
    await new Promise((resolve) =>
      child.stderr?.on('data', (piece) => /session.failed/.test(piece) && resolve(0)),
    );
    child.kill('SIGTERM');
    assert.equal((await ended).code, 1);
  });

  it('lets the workload go on when the gate goes down, and comes back', async () => {
    const { child, ended } = start([
      'sh',
      '-c',
      'trap "exit 5" TERM; echo ready; while :; do sleep 0.05; done',
    ]);
    await said(child, 'ready');
    const count = parent.hellos.length;
    parent.control?.destroy();
    while (parent.hellos.length === count) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual(parent.hellos.at(-1)?.key, parent.hellos.at(-2)?.key);
    child.kill('SIGTERM');
    assert.equal((await ended).code, 5);
  });

  // Twenty orphans that end while the workload lives. /proc tells whether any stayed behind as a zombie, the agent
  // how many it reaped.
  function orphanScript(file: string): string {
    return `
      i=0; while [ $i -lt 20 ]; do (sh -c 'exit 3' &) ; i=$((i+1)); done
      sleep 0.5
      cat /proc/[0-9]*/status 2>/dev/null | grep -A 8 '^State:.*Z' | grep -c "^PPid:[[:space:]]*$PPID$"
      ${process.execPath} ${POSTERN} guest status --config ${file} --json | grep reapedCount
      exit 7`;
  }

  it('reaps what the workload leaves behind, and still gets its code', async () => {
    const { code, stdout } = await start(['sh', '-c', orphanScript(config)]).ended;
    assert.equal(code, 7);
    const [zombies, reaped] = stdout.trim().split('\n');
    assert.equal(zombies, '0');
    assert.ok(Number(/\d+/.exec(reaped ?? '')?.[0]) >= 20, reaped);
  });

  it('does so as process 1, and passes signals on there', { skip: !isRoot }, async () => {
    const script = `${orphanScript(config).replace('exit 7', '')}
      trap 'exit 6' TERM; kill -TERM 1; while :; do sleep 0.05; done`;
    const words = [POSTERN, 'guest', '--config', config, '--', 'sh', '-c', script];
    const child = spawn('unshare', ['--pid', '--fork', '--mount-proc', process.execPath, ...words]);
    running.add(child);
    let stdout = '';
    child.stdout.on('data', (piece) => {
      stdout += String(piece);
    });
    const [code] = await once(child, 'close');
    running.delete(child);
    assert.equal(code, 6);
    const [zombies, reaped] = stdout.trim().split('\n');
    assert.equal(zombies, '0');
    assert.ok(Number(/\d+/.exec(reaped ?? '')?.[0]) >= 20, reaped);
  });

  it('leaks no descriptor and no key', async () => {
    // 0, 1 and 2 are the workload's own. What whoever started the agent left open is not the agent's to close.
    const script = 'cd /proc/$$/fd; for f in *; do [ $f -gt 2 ] && readlink $f; done; env | base64 -w 0';
    const { stdout } = await start(['sh', '-c', script]).ended;
    const [links = '', encoded = ''] = /^([\s\S]*?)([A-Za-z0-9+/=]*)$/.exec(stdout)?.slice(1) ?? [];
    const key = await readFile(join(folder, 'guest', 'session.key'));
    assert.doesNotMatch(links, /socket:|anon_inode|session|vsock/);
    const environment = Buffer.from(encoded, 'base64').toString();
    for (const form of ['hex', 'base64'] as const) assert.ok(!environment.includes(key.toString(form)));
  });

  it('drops to the configured user, who cannot read the key, and cannot gain rights', {
    skip: !isRoot,
  }, async () => {
    const file = await configure(
      'dropped',
      parent.path,
      '{user: nobody, workingDirectory: /, environment: {ONE: "1"}, proxyEnvironment: false}',
    );
    const key = join(folder, 'dropped', 'session.key');
    const script = `id -u; id -G; grep NoNewPrivs /proc/self/status; echo "$ONE$ALL_PROXY"; cat ${key} 2>&1; cat /proc/$PPID/mem 2>&1 | head -c 100`;
    const { stdout, stderr } = await start(['sh', '-c', script], file).ended;
    const [uid, groups, noNewPrivileges, one, cat, mem] = stdout.split('\n');
    assert.equal(uid, '65534');
    assert.equal(groups, '65534');
    assert.match(noNewPrivileges ?? '', /1$/);
    assert.equal(one, '1');
    assert.match(cat ?? '', /Permission denied/);
    assert.match(mem ?? '', /Permission denied/);
    assert.doesNotMatch(stderr, /workload.unprotected/);
  });

  it('warns when the workload could read the key', async () => {
    assert.match((await start(['true']).ended).stderr, /workload.unprotected.*can read the session key/);
  });

  it('refuses an account that is not there', { skip: !isRoot }, async () => {
    const file = await configure('nouser', parent.path, '{user: no-such-user}');
    const { code, stderr } = await start(['true'], file).ended;
    assert.equal(code, 1);
    assert.match(stderr, /ERR_WORKLOAD_ACCOUNT/);
  });
});
