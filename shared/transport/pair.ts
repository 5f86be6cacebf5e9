import { adoptStream } from './native/handle.ts';
import { openSocketPair } from './native/libc.ts';
import { streamOver } from './stream.ts';
import type { Stream } from './transport.ts';

/** Two ends of one stream inside this process: a unix socketpair, so that it behaves as the real thing does. */
export function streamPair(): [Stream, Stream] {
  const [first, second] = openSocketPair();
  return [
    streamOver(adoptStream(first), { kind: 'pair' }),
    streamOver(adoptStream(second), { kind: 'pair' }),
  ];
}
