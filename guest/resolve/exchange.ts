import { randomInt } from 'node:crypto';
import type { Socket } from 'node:net';
import { encode, RECURSION_DESIRED } from 'dns-packet';
import { PosternError } from '../../shared/errors.ts';
import { readExactly } from '../../shared/wire/read.ts';
import { type AddressType, type ParsedAnswer, parseAnswer, type Question } from './answer.ts';

/** An answer with a full set of addresses and a long chain takes 2 KiB; TCP would allow 64 KiB. */
export const MESSAGE_MAX_BYTES = 16 * 1024;
const HEADER_BYTES = 12;
/** Answers to other questions that are skipped before the server is given up. */
const STRAYS_MAX_COUNT = 4;

/**
 * Asks for both address families at once over one TCP stream (RFC 7766 section 6.2.1) and takes the answers in
 * whichever order they come.
 * @throws PosternError ERR_WIRE_*, ERR_TRANSPORT_*
 */
export async function askBoth(
  stream: Socket,
  name: string,
  timeoutMs: number,
): Promise<Record<AddressType, ParsedAnswer>> {
  const deadline = performance.now() + timeoutMs;
  const questions = newQuestions(name);
  stream.write(Buffer.concat([...questions.values()].map(encodeQuestion)));
  const answers = new Map<AddressType, ParsedAnswer>();
  for (let strayCount = 0; answers.size < questions.size; ) {
    const message = await readMessage(stream, deadline);
    const question = questions.get(message.readUInt16BE(0));
    if (question === undefined || answers.has(question.type)) {
      strayCount += 1;
      if (strayCount > STRAYS_MAX_COUNT)
        throw new PosternError('ERR_WIRE_MALFORMED', 'answers that were not asked for');
      continue;
    }
    answers.set(question.type, parseAnswer(message, question));
  }
  const failed: ParsedAnswer = { kind: 'failed', rcode: 'no answer' };
  return { A: answers.get('A') ?? failed, AAAA: answers.get('AAAA') ?? failed };
}

function newQuestions(name: string): Map<number, Question> {
  const first = randomInt(0x10000);
  // Any other number: never equal to the first.
  const second = (first + randomInt(1, 0x10000)) & 0xffff;
  return new Map([
    [first, { id: first, name, type: 'A' }],
    [second, { id: second, name, type: 'AAAA' }],
  ]);
}

function encodeQuestion({ id, name, type }: Question): Buffer {
  const message = encode({
    type: 'query',
    id,
    flags: RECURSION_DESIRED,
    questions: [{ name, type, class: 'IN' }],
  });
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

async function readMessage(stream: Socket, deadline: number): Promise<Buffer> {
  const length = (await readExactly(stream, 2, leftMs(deadline))).readUInt16BE(0);
  if (length < HEADER_BYTES) throw new PosternError('ERR_WIRE_MALFORMED', `a DNS message of ${length} bytes`);
  if (length > MESSAGE_MAX_BYTES)
    throw new PosternError('ERR_WIRE_TOO_LARGE', `a DNS message of ${length} bytes`);
  return readExactly(stream, length, leftMs(deadline));
}

function leftMs(deadline: number): number {
  return Math.max(1, deadline - performance.now());
}
