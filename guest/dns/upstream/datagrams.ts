import { isPosternError, PosternError } from '../../../shared/errors.ts';
import { addressText, type SocketAddress } from './address.ts';
import { type OpenPort, QuestionPort } from './question-port.ts';
import type { Upstream } from './upstream.ts';

/** Questions from one port, then the next comes from another (RFC 5452 section 9.2): a port that was found out is soon of no use. */
export const QUESTIONS_PER_PORT = 16;
/** And no longer than this, however few they are. */
export const PORT_MAX_AGE_MS = 4_000;

/** A way over UDP, with ports to give up at the end. */
export interface DatagramUpstream extends Upstream {
  close(): void;
}

/**
 * DNS over UDP from ports that somebody else has: in the guest, associations with the parent. Every question has an id of
 * its own at random, and few share a port. Answers count only from the server's own address and port.
 */
export function datagramUpstream(server: SocketAddress, open: OpenPort): DatagramUpstream {
  const name = `${addressText(server)} over UDP`;
  const ports = new Set<QuestionPort>();
  let current: QuestionPort | undefined;
  let isClosed = false;
  const portFor = (): QuestionPort => {
    if (current?.takes(QUESTIONS_PER_PORT, PORT_MAX_AGE_MS) === true) return current;
    current?.retire();
    const port = new QuestionPort(server, open, () => ports.delete(port));
    ports.add(port);
    current = port;
    return port;
  };
  return {
    name,
    async exchange(query, { signal }) {
      if (isClosed) throw new PosternError('ERR_DNS_UPSTREAM', `${name}: the agent stops`);
      try {
        return await portFor().ask(query, signal);
      } catch (error) {
        if (signal.aborted) throw new PosternError('ERR_DNS_TIMEOUT', `${name} did not answer in time`);
        const reason = error instanceof Error ? error.message : String(error);
        if (isPosternError(error, 'ERR_DNS_UPSTREAM')) throw error;
        throw new PosternError('ERR_DNS_UPSTREAM', `${name}: ${reason}`, { cause: error });
      }
    },
    close() {
      isClosed = true;
      for (const port of ports) port.close();
    },
  };
}
