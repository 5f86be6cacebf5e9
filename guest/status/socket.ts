import { unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import * as v from 'valibot';
import { type ErrorCode, isPosternError, PosternError } from '../../shared/errors.ts';
import { type OrderDone, orderSchema, type VolumeOrder } from './order.ts';
import type { StatusReport } from './report.ts';

/** Questions at once; each is answered in a tick. */
const CLIENTS_MAX = 16;
/** A report of REPORT_FLOWS_MAX flows takes 60 KiB. */
const REPORT_MAX_BYTES = 1024 * 1024;
export const STATUS_TIMEOUT_MS = 3_000;

/** The longest order names a volume and a snapshot. */
const ORDER_MAX_BYTES = 4096;
/** What an order changes has to be stored and anchored. A store that is out of reach may hold it up for longer than a person waits. */
const ORDER_TIMEOUT_MS = 150_000;

export interface StatusSource {
  report(): StatusReport;
  /** @throws PosternError, which the one who asked is told */
  carryOut(order: VolumeOrder): Promise<OrderDone>;
}

/**
 * Answers whoever connects and says nothing with one JSON document, whoever gives an order with what came of it, and closes.
 * Only the agent's user can connect (mode 0600).
 * @throws PosternError ERR_TRANSPORT_IN_USE when another agent answers there, ERR_TRANSPORT_FAILED
 */
export async function serveStatus(path: string, source: StatusSource): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    socket.setTimeout(STATUS_TIMEOUT_MS, () => socket.destroy());
    readToEnd(socket, ORDER_MAX_BYTES, (text) => {
      // What is asked for may take longer than the asking.
      socket.setTimeout(0);
      void answer(text, source).then((reply) => socket.end(JSON.stringify(reply)));
    });
  });
  server.maxConnections = CLIENTS_MAX;
  try {
    await listenPrivately(server, path);
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'EADDRINUSE')
      throw failed(path, error);
    if (await answers(path)) {
      throw new PosternError('ERR_TRANSPORT_IN_USE', `${path}: another agent is running`, { cause: error });
    }
    // What an agent left behind that was killed.
    await unlink(path);
    await listenPrivately(server, path).catch((cause: unknown) => {
      throw failed(path, cause);
    });
  }
  return server;
}

/** The mask holds for the bind inside `listen`, so the socket is never open to others, not for a moment. */
function listenPrivately(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const mask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(mask);
    }
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}

async function answer(text: string, source: StatusSource): Promise<object> {
  if (text === '') return source.report();
  try {
    return { done: await source.carryOut(parseOrder(text)) };
  } catch (error) {
    if (!isPosternError(error)) throw error;
    return { error: { code: error.code, message: error.message } };
  }
}

function parseOrder(text: string): VolumeOrder {
  try {
    const parsed = v.safeParse(orderSchema, JSON.parse(text));
    if (parsed.success) return parsed.output;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new PosternError('ERR_WIRE_MALFORMED', 'the agent does not know such an order');
}

/** Calls back when the other side has said all; cuts off who says more than that. */
function readToEnd(socket: Socket, maxBytes: number, done: (text: string) => void): void {
  const pieces: Buffer[] = [];
  let length = 0;
  socket.on('data', (piece) => {
    length += piece.length;
    if (length > maxBytes) socket.destroy(new Error('it says too much'));
    else pieces.push(piece);
  });
  socket.on('end', () => done(Buffer.concat(pieces).toString('utf8')));
}

/** @throws PosternError ERR_TRANSPORT_REFUSED when no agent answers there */
export function askStatus(path: string): Promise<StatusReport> {
  return ask(path, '', STATUS_TIMEOUT_MS);
}

/**
 * Has the agent do something with a volume that it has attached.
 * @throws PosternError ERR_TRANSPORT_REFUSED when no agent answers there, and what the agent failed with
 */
export async function giveOrder(path: string, order: VolumeOrder): Promise<OrderDone> {
  type Reply = { readonly done: OrderDone } | { readonly error: { code: ErrorCode; message: string } };
  const reply = await ask<Reply>(path, JSON.stringify(order), ORDER_TIMEOUT_MS);
  if ('done' in reply) return reply.done;
  throw new PosternError(reply.error.code, reply.error.message);
}

function ask<Reply>(path: string, text: string, timeoutMs: number): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const refuse = (why: string, cause?: Error): void => {
      socket.destroy();
      const message = `no agent answers at ${path}: ${why}`;
      reject(new PosternError('ERR_TRANSPORT_REFUSED', message, cause === undefined ? {} : { cause }));
    };
    const silence = text === '' ? 'it says nothing' : 'it is not done with the order yet, and may still be';
    socket.setTimeout(timeoutMs, () => refuse(silence));
    socket.on('error', (error) => refuse(error.message, error));
    readToEnd(socket, REPORT_MAX_BYTES, (answered) => {
      try {
        resolve(JSON.parse(answered) as Reply);
      } catch (error) {
        refuse('its answer is no report', error as Error);
      }
    });
    socket.end(text);
  });
}

function failed(path: string, cause: unknown): PosternError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PosternError('ERR_TRANSPORT_FAILED', `${path}: the status socket cannot be made: ${reason}`, {
    cause,
  });
}
