import type { Socket } from 'node:net';
import { type Answer, type DecodedPacket, decode, encode } from 'dns-packet';

export interface Zone {
  readonly [name: string]: {
    readonly A?: readonly string[];
    readonly AAAA?: readonly string[];
    readonly CNAME?: string;
    readonly ttl?: number;
  };
}

/** Serves DNS over TCP from a table, as a recursive server would: the whole CNAME chain in the answer. */
export function answerFor(zone: Zone, onQuestion: (name: string, type: string) => void = () => {}) {
  return serveDns((query) => {
    const [question] = query.questions ?? [];
    if (question === undefined) return undefined;
    onQuestion(question.name, question.type);
    const answers: Answer[] = [];
    let name = question.name.toLowerCase();
    for (let hop = 0; hop < 20; hop += 1) {
      const { CNAME, ttl = 60 } = zone[name] ?? {};
      if (CNAME === undefined) break;
      answers.push({ type: 'CNAME', name, ttl, data: CNAME });
      name = CNAME;
    }
    const entry = zone[name];
    const ttl = entry?.ttl ?? 60;
    if (question.type === 'A')
      for (const data of entry?.A ?? []) answers.push({ type: 'A', name, ttl, data });
    if (question.type === 'AAAA')
      for (const data of entry?.AAAA ?? []) answers.push({ type: 'AAAA', name, ttl, data });
    const rcode = entry === undefined ? 3 : 0;
    return encode({
      type: 'response',
      id: query.id ?? 0,
      flags: 0x180 | rcode,
      questions: [question],
      answers,
    });
  });
}

/** `answer` gives the message for a query, or undefined for silence. */
export function serveDns(answer: (query: DecodedPacket) => Buffer | undefined): (socket: Socket) => void {
  return (socket) => {
    let pending = Buffer.alloc(0);
    socket.on('data', (piece) => {
      pending = Buffer.concat([pending, piece]);
      while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
        const end = 2 + pending.readUInt16BE(0);
        const message = answer(decode(pending.subarray(2, end)));
        pending = pending.subarray(end);
        if (message !== undefined) socket.write(framed(message));
      }
    });
    socket.on('end', () => socket.end());
  };
}

export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}
