import { Duplex } from 'node:stream';
import { type ConnectionOptions, connect } from 'node:tls';

/** The first flight that Node's own TLS sends, as it would be on the wire. */
export function realHello(options: ConnectionOptions): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const wire = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        resolve(chunk);
        done();
      },
    });
    const socket = connect({ ...options, socket: wire });
    socket.on('error', reject);
    wire.on('close', () => socket.destroy());
  });
}

function sized(size: 1 | 2 | 3, body: Buffer): Buffer {
  const head = Buffer.alloc(size);
  head.writeUIntBE(body.length, 0, size);
  return Buffer.concat([head, body]);
}

export function extension(type: number, value: Buffer): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(type);
  return Buffer.concat([head, sized(2, value)]);
}

export function serverName(...names: readonly string[]): Buffer {
  const entries = names.map((name) =>
    Buffer.concat([Buffer.from([0]), sized(2, Buffer.from(name, 'latin1'))]),
  );
  return extension(0, sized(2, Buffer.concat(entries)));
}

export interface HelloParts {
  readonly type?: number;
  readonly sessionId?: Buffer;
  readonly cipherSuites?: Buffer;
  readonly compression?: Buffer;
  /** Undefined: the hello ends before them. */
  readonly extensions?: readonly Buffer[];
  readonly trailing?: Buffer;
}

/** A handshake message made by hand. */
export function message(parts: HelloParts): Buffer {
  const body = Buffer.concat([
    Buffer.from([3, 3]),
    Buffer.alloc(32, 7),
    sized(1, parts.sessionId ?? Buffer.alloc(0)),
    sized(2, parts.cipherSuites ?? Buffer.from([0x13, 0x01])),
    sized(1, parts.compression ?? Buffer.from([0])),
    parts.extensions === undefined ? Buffer.alloc(0) : sized(2, Buffer.concat(parts.extensions)),
    parts.trailing ?? Buffer.alloc(0),
  ]);
  return Buffer.concat([Buffer.from([parts.type ?? 1]), sized(3, body)]);
}

/** The message in records of at most `recordBytes`. */
export function records(bytes: Buffer, recordBytes = 16_384): Buffer {
  const parts: Buffer[] = [];
  for (let start = 0; start < bytes.length; start += recordBytes) {
    parts.push(Buffer.from([22, 3, 1]), sized(2, bytes.subarray(start, start + recordBytes)));
  }
  return Buffer.concat(parts);
}
