import { connect, createServer, type Socket } from 'node:net';

/**
 * The load of the network benchmark, as a process of its own: `server`, or one measurement as a client. Prints one JSON
 * object a line. The first byte of a connection tells the server what to do: U swallow, D pour out, E echo.
 */
export interface Target {
  readonly host: string;
  readonly port: number;
  /** Port of an HTTP proxy on loopback to CONNECT through; absent: dial the target itself. */
  readonly proxyPort?: number;
}

export type Task =
  | { readonly kind: 'server' }
  | {
      readonly kind: 'bulk';
      readonly target: Target;
      readonly up: boolean;
      readonly flows: number;
      readonly seconds: number;
    }
  | {
      readonly kind: 'latency';
      readonly target: Target;
      readonly seconds: number;
    }
  | {
      readonly kind: 'connect';
      readonly target: Target;
      readonly concurrency: number;
      readonly seconds: number;
    }
  | { readonly kind: 'idle'; readonly target: Target; readonly flows: number };

const BLOCK = Buffer.alloc(256 * 1024, 0x61);
const MESSAGE_BYTES = 100;

interface Dialled {
  readonly socket: Socket;
  onData: (bytes: Buffer) => void;
}

/** All reads of the process go into one buffer: the load should cost little beside what it measures. */
const readBuffer = Buffer.alloc(256 * 1024);

function dial(target: Target): Promise<Dialled> {
  return new Promise((resolve, reject) => {
    const port = target.proxyPort ?? target.port;
    const host = target.proxyPort === undefined ? target.host : '127.0.0.1';
    let head = '';
    const dialled: Dialled = {
      socket: connect({
        port,
        host,
        noDelay: true,
        onread: {
          buffer: readBuffer,
          callback: (length) => {
            dialled.onData(readBuffer.subarray(0, length));
            return true;
          },
        },
      }),
      onData: (bytes) => {
        head += bytes.toString('latin1');
        if (!head.includes('\r\n\r\n')) return;
        if (head.startsWith('HTTP/1.1 200')) resolve(dialled);
        else reject(new Error(head));
      },
    };
    dialled.socket.on('error', reject).on('connect', () => {
      if (target.proxyPort === undefined) return resolve(dialled);
      dialled.socket.write(`CONNECT ${target.host}:${target.port} HTTP/1.1\r\nHost: ${target.host}\r\n\r\n`);
    });
  });
}

function pour(socket: Socket): void {
  while (!socket.destroyed && socket.write(BLOCK));
  if (!socket.destroyed) socket.once('drain', () => pour(socket));
}

function serve(): void {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.once('data', (first: Buffer) => {
      const mode = String.fromCharCode(first[0] ?? 0);
      if (mode === 'D') pour(socket);
      if (mode === 'E') {
        if (first.length > 1) socket.write(first.subarray(1));
        socket.on('data', (bytes: Buffer) => socket.write(bytes));
      }
      if (mode === 'U') socket.on('data', () => {});
    });
  });
  server.listen(0, '0.0.0.0', 65535, () => print(server.address()));
}

async function bulk(task: Extract<Task, { kind: 'bulk' }>): Promise<void> {
  let bytes = 0;
  const flows = await Promise.all(Array.from({ length: task.flows }, () => dial(task.target)));
  const startedAt = performance.now();
  for (const flow of flows) {
    flow.onData = (data) => {
      bytes += data.length;
    };
    flow.socket.write(task.up ? 'U' : 'D');
    if (task.up) pour(flow.socket);
  }
  await sleep(task.seconds * 1000);
  const seconds = (performance.now() - startedAt) / 1000;
  if (task.up) for (const flow of flows) bytes += flow.socket.bytesWritten - flow.socket.writableLength;
  print({ bytes, seconds });
}

/** Request and answer of 100 bytes on one flow, one at a time. */
async function latency(task: Extract<Task, { kind: 'latency' }>): Promise<void> {
  const flow = await dial(task.target);
  const message = Buffer.alloc(MESSAGE_BYTES, 0x62);
  const samplesMs: number[] = [];
  const deadline = performance.now() + task.seconds * 1000;
  flow.socket.write('E');
  while (performance.now() < deadline) {
    const startedAt = performance.now();
    let missing = MESSAGE_BYTES;
    await new Promise<void>((resolve) => {
      flow.onData = (bytes) => {
        missing -= bytes.length;
        if (missing === 0) resolve();
      };
      flow.socket.write(message);
    });
    samplesMs.push(performance.now() - startedAt);
    // Paced, so that an idle proxy is idle.
    await sleep(1);
  }
  samplesMs.sort((a, b) => a - b);
  const quantile = (q: number): number => samplesMs[Math.floor(q * (samplesMs.length - 1))] ?? Number.NaN;
  print({ p50Ms: quantile(0.5), p99Ms: quantile(0.99), count: samplesMs.length });
}

/** New flows: connect, one byte there and back, close. */
async function connects(task: Extract<Task, { kind: 'connect' }>): Promise<void> {
  let count = 0;
  const startedAt = performance.now();
  const deadline = startedAt + task.seconds * 1000;
  const worker = async (): Promise<void> => {
    while (performance.now() < deadline) {
      const flow = await dial(task.target);
      await new Promise<void>((resolve) => {
        flow.onData = () => resolve();
        flow.socket.write('Ex');
      });
      flow.socket.destroy();
      count += 1;
    }
  };
  await Promise.all(Array.from({ length: task.concurrency }, worker));
  print({ count, seconds: (performance.now() - startedAt) / 1000 });
}

/** Opens flows, says so, and holds them until its input ends. */
async function idle(task: Extract<Task, { kind: 'idle' }>): Promise<void> {
  const concurrency = 64;
  let open = 0;
  const worker = async (): Promise<void> => {
    while (open < task.flows) {
      open += 1;
      const flow = await dial(task.target);
      await new Promise<void>((resolve) => {
        flow.onData = () => resolve();
        flow.socket.write('Ex');
      });
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  print({ flows: open });
  process.stdin.resume().on('end', () => process.exit());
  await new Promise(() => {});
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

const task = JSON.parse(process.argv[2] ?? '{}') as Task;
if (task.kind === 'server') serve();
else {
  if (task.kind === 'bulk') await bulk(task);
  if (task.kind === 'latency') await latency(task);
  if (task.kind === 'connect') await connects(task);
  if (task.kind === 'idle') await idle(task);
  process.exit();
}
