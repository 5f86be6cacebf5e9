import { SocksHandshake, type SocksStep } from '../../guest/proxy/socks5.ts';

/** What a whole conversation comes to, however it is cut. */
export function converse(pieces: readonly Buffer[]): { answers: string; last: SocksStep } {
  const handshake = new SocksHandshake();
  let answers = '';
  let last: SocksStep = { kind: 'more' };
  let behind = Buffer.alloc(0);
  for (const piece of pieces) {
    if (last.kind === 'request' || last.kind === 'close') {
      behind = Buffer.concat([behind, piece]);
      continue;
    }
    last = handshake.push(piece);
    while (last.kind === 'answer') {
      answers += last.bytes.toString('hex');
      last = handshake.push(Buffer.alloc(0));
    }
  }
  if (last.kind === 'request') last = { ...last, rest: Buffer.concat([last.rest, behind]) };
  return { answers, last };
}
