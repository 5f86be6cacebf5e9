import { execFileSync } from 'node:child_process';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createSecureServer } from 'node:http2';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { FrameReader, frame } from '../../guest/dns/upstream/frames.ts';

/** Answers a question, or not at all. */
export type Respond = (query: Buffer) => Promise<Buffer | undefined> | Buffer | undefined;

export interface RunningServer {
  readonly port: number;
  /** Connections taken so far. */
  connectionCount(): number;
  close(): void;
}

export async function udpServer(
  onQuery: (query: Buffer, reply: (answer: Buffer) => void, socket: UdpSocket, port: number) => void,
  port = 0,
): Promise<RunningServer> {
  const socket = createSocket('udp4');
  socket.on('message', (query, from) => {
    onQuery(query, (answer) => socket.send(answer, from.port, from.address), socket, from.port);
  });
  socket.bind(port, '127.0.0.1');
  await once(socket, 'listening');
  return { port: socket.address().port, connectionCount: () => 0, close: () => socket.close() };
}

/** Length-prefixed messages over TCP or, with a certificate, TLS. */
export async function streamServer(
  respond: Respond,
  certificate?: Certificate,
  port = 0,
): Promise<RunningServer> {
  const sockets = new Set<Socket>();
  let count = 0;
  const serve = (socket: Socket): void => {
    const reader = new FrameReader();
    count += 1;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    const answerOne = async (query: Buffer): Promise<void> => {
      const answer = await respond(query);
      if (answer !== undefined) socket.write(frame(answer));
    };
    socket.on('data', (chunk: Buffer) => {
      for (const query of reader.push(chunk)) void answerOne(query);
    });
  };
  const server: Server =
    certificate === undefined
      ? createServer(serve)
      : createTlsServer({ ...certificate, ALPNProtocols: ['dot'] }, serve);
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    connectionCount: () => count,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Others take ports meanwhile: a number that is free for TCP may be taken for UDP. */
const PORT_TRIES = 20;

/** Both transports on one port, as a resolver has them. */
export async function resolverServer(
  onQuery: Parameters<typeof udpServer>[0],
  respond: Respond,
): Promise<RunningServer> {
  for (let tries = 1; ; tries += 1) {
    const tcp = await streamServer(respond);
    try {
      const udp = await udpServer(onQuery, tcp.port);
      const close = (): void => {
        udp.close();
        tcp.close();
      };
      return { port: tcp.port, connectionCount: tcp.connectionCount, close };
    } catch (error) {
      tcp.close();
      if (tries === PORT_TRIES || (error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
  }
}

export async function httpsServer(respond: Respond, certificate: Certificate): Promise<RunningServer> {
  const server = createSecureServer(certificate);
  let count = 0;
  const sessions = new Set<{ destroy(): void }>();
  server.on('session', (session) => {
    count += 1;
    sessions.add(session);
  });
  server.on('stream', async (stream, headers) => {
    const chunks: Buffer[] = [];
    for await (const chunk of stream) chunks.push(chunk as Buffer);
    const isRight = headers[':path'] === '/dns-query' && headers[':method'] === 'POST';
    const answer = isRight ? await respond(Buffer.concat(chunks)) : undefined;
    if (answer === undefined) {
      stream.respond({ ':status': 404 });
      stream.end();
    } else {
      stream.respond({ ':status': 200, 'content-type': 'application/dns-message' });
      stream.end(answer);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    connectionCount: () => count,
    close: () => {
      server.close();
      for (const session of sessions) session.destroy();
    },
  };
}

export interface Certificate {
  readonly key: string;
  readonly cert: string;
}

/** A self-signed certificate for a name. */
export function certificateFor(name: string): Certificate {
  const folder = mkdtempSync(join(tmpdir(), 'postern-certificate-'));
  try {
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
    const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
    execFileSync('openssl', ['req', '-x509', ...curve, ...subject, '-keyout', key, '-out', cert], {
      stdio: 'ignore',
    });
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
