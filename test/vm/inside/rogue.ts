import { randomBytes } from 'node:crypto';
import { isPosternError } from '../../../shared/errors.ts';
import { connectStream } from '../../../shared/transport/connect.ts';
import { encodeHello } from '../../../shared/wire/control.ts';
import { encodeStreamHeader } from '../../../shared/wire/header.ts';
import { encodeInboundOpen, encodeTcpOpen } from '../../../shared/wire/open.ts';
import { readExactly } from '../../../shared/wire/read.ts';
import { decodeReply, REPLY_BYTES } from '../../../shared/wire/reply.ts';
import { requireVm } from './guard.ts';

requireVm();

/**
 * A program for the VM: a compromised workload that knows the protocol and dials the parent, and the agent, itself.
 * Prints how each attempt ended, one JSON object a line. Argument: an address that the policy allows.
 */
export interface RogueResult {
  readonly attempt: string;
  /** The status of the reply, or the code of the error. */
  readonly outcome: string;
}

const REPLY_TIMEOUT_MS = 20_000;
const PARENT_PORT = 5000;
const AGENT_PORT = 5001;
const key = randomBytes(32);
const [world = ''] = process.argv.slice(2);
const hello = encodeHello({ minVersion: 1, maxVersion: 1, capabilities: 3, key, agent: 'rogue' });
const client = { address: '203.0.113.99', port: 4000 };
const inbound = encodeInboundOpen({ servicePort: 8080, client, local: client });

await attempt(
  'a tcp flow with a key of its own',
  PARENT_PORT,
  open('tcp', 2, encodeTcpOpen({ port: 443, addresses: [world] })),
);
await attempt('a session of its own', PARENT_PORT, open('control', 0, hello));
await attempt(
  'bytes of no protocol',
  PARENT_PORT,
  Buffer.from(`GET / HTTP/1.1\r\nHost: ${world}\r\nX: ${'x'.repeat(64)}\r\n\r\n`),
);
await attempt('an object stream', PARENT_PORT, open('object', 4, Buffer.alloc(0)));
await attempt('an inbound stream to the agent', AGENT_PORT, open('inbound', 1, inbound));

function open(kind: 'tcp' | 'control' | 'object' | 'inbound', flowId: number, body: Buffer): Buffer {
  return encodeStreamHeader(kind, flowId, body, key);
}

async function attempt(what: string, port: number, bytes: Buffer): Promise<void> {
  let outcome: string;
  try {
    const stream = await connectStream({ kind: 'vsock', cid: 1, port });
    stream.on('error', () => {});
    stream.write(bytes);
    outcome = decodeReply(await readExactly(stream, REPLY_BYTES, REPLY_TIMEOUT_MS)).status;
    stream.destroy();
  } catch (error) {
    if (!isPosternError(error)) throw error;
    outcome = error.code;
  }
  process.stdout.write(`${JSON.stringify({ attempt: what, outcome } satisfies RogueResult)}\n`);
}
