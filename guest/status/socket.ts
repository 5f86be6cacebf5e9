import { unlink } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import type { StatusReport } from './report.ts';

/** Questions at once; each is answered in a tick. */
const CLIENTS_MAX = 16;
/** A report of REPORT_FLOWS_MAX flows takes 60 KiB. */
const REPORT_MAX_BYTES = 1024 * 1024;
export const STATUS_TIMEOUT_MS = 3_000;

/**
 * Answers whoever connects with one JSON document, and closes. Only the agent's user can connect (mode 0600).
 * @throws PosternError ERR_TRANSPORT_IN_USE when another agent answers there, ERR_TRANSPORT_FAILED
 */
export async function serveStatus(path: string, report: () => StatusReport): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.setTimeout(STATUS_TIMEOUT_MS, () => socket.destroy());
    socket.end(JSON.stringify(report()));
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

/** @throws PosternError ERR_TRANSPORT_REFUSED when no agent answers there */
export function askStatus(path: string): Promise<StatusReport> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let length = 0;
    const socket = connect(path);
    const refuse = (why: string, cause?: Error): void => {
      socket.destroy();
      const message = `no agent answers at ${path}: ${why}`;
      reject(new PosternError('ERR_TRANSPORT_REFUSED', message, cause === undefined ? {} : { cause }));
    };
    socket.setTimeout(STATUS_TIMEOUT_MS, () => refuse('it says nothing'));
    socket.on('error', (error) => refuse(error.message, error));
    socket.on('data', (piece) => {
      length += piece.length;
      if (length > REPORT_MAX_BYTES) refuse('it says too much');
      else pieces.push(piece);
    });
    socket.on('end', () => {
      try {
        resolve(JSON.parse(Buffer.concat(pieces).toString('utf8')) as StatusReport);
      } catch (error) {
        refuse('its answer is no report', error as Error);
      }
    });
  });
}

function failed(path: string, cause: unknown): PosternError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PosternError('ERR_TRANSPORT_FAILED', `${path}: the status socket cannot be made: ${reason}`, {
    cause,
  });
}
