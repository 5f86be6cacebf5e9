import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { createServer as createTlsServer } from 'node:https';
import { createServer as createTcpServer, type Socket } from 'node:net';
import { type DecodedPacket, decode, encode } from 'dns-packet';

/**
 * A program of the demo: the internet. A web server over TLS, and a name server (UDP and TCP) that knows two names, both of
 * which lead to it; the guest's policy knows one. Arguments: address, web port, DNS port, certificate file, key file.
 */
const [address = '', webPort = '', dnsPort = '', certificateFile = '', keyFile = ''] = process.argv.slice(2);
const NAMES = new Set(['api.example.com', 'evil.example.net']);
/** The demo's questions fit in a hundred bytes. */
const MESSAGE_MAX_BYTES = 4096;

createTlsServer({ cert: readFileSync(certificateFile), key: readFileSync(keyFile) }, (request, response) => {
  response.end(`hello from the internet to ${request.socket.remoteAddress}\n`);
}).listen(Number(webPort), address, announce);

createTcpServer((socket) => {
  let received: Buffer = Buffer.alloc(0);
  socket.on('error', () => socket.destroy());
  socket.on('data', (piece: Buffer) => {
    received = Buffer.concat([received, piece]);
    if (received.length > MESSAGE_MAX_BYTES) socket.destroy();
    received = answerAll(socket, received);
  });
}).listen(Number(dnsPort), address, announce);

const datagrams = createSocket('udp4');
datagrams.on('message', (query, from) => datagrams.send(reply(decode(query)), from.port, from.address));
datagrams.bind(Number(dnsPort), address, announce);

let listening = 0;
function announce(): void {
  listening += 1;
  if (listening === 3) process.stdout.write('ready\n');
}

/** DNS over TCP (RFC 7766): a two-byte length before each message. */
function answerAll(socket: Socket, received: Buffer): Buffer {
  let rest = received;
  while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
    const length = rest.readUInt16BE(0);
    const answer = reply(decode(rest.subarray(2, 2 + length)));
    const prefix = Buffer.alloc(2);
    prefix.writeUInt16BE(answer.length);
    socket.write(Buffer.concat([prefix, answer]));
    rest = rest.subarray(2 + length);
  }
  return rest;
}

function reply(query: DecodedPacket): Buffer {
  const [question] = query.questions ?? [];
  const name = question?.name.toLowerCase() ?? '';
  const known = NAMES.has(name);
  const NXDOMAIN = 3;
  const RECURSION = 0x0180;
  return encode({
    type: 'response',
    ...(query.id === undefined ? {} : { id: query.id }),
    flags: RECURSION | (known ? 0 : NXDOMAIN),
    questions: query.questions ?? [],
    answers: known && question?.type === 'A' ? [{ type: 'A', name, ttl: 60, data: address }] : [],
  });
}
