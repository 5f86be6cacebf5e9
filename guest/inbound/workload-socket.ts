import { connect, type Socket } from 'node:net';
import { PosternError } from '../../shared/errors.ts';
import type { IngressRule } from '../../shared/policy/types.ts';
import type { Stream } from '../../shared/transport/transport.ts';

/** The workload is on this machine; one that does not accept in this time has a full backlog. */
export const WORKLOAD_CONNECT_TIMEOUT_MS = 5_000;

/**
 * Connects to where the workload listens; gives up when the parent's `stream` closes meanwhile.
 * @throws PosternError ERR_FLOW_REFUSED, ERR_FLOW_TIMEOUT, ERR_FLOW_UNREACHABLE, ERR_TRANSPORT_ABORTED
 */
export function connectWorkload({ to }: IngressRule, stream: Stream): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const local = connect({ host: to.address, port: to.port, allowHalfOpen: true, noDelay: true });
    const finish = (error?: PosternError): void => {
      clearTimeout(timer);
      local.off('connect', onConnect).off('error', onError);
      stream.off('close', onGone);
      // Told to whoever owns the socket next; without a listener an early reset would end the process.
      local.on('error', () => {});
      if (error === undefined) {
        resolve(local);
      } else {
        local.destroy();
        reject(error);
      }
    };
    const onConnect = (): void => finish();
    const onError = (cause: NodeJS.ErrnoException): void => {
      const code = cause.code === 'ECONNREFUSED' ? 'ERR_FLOW_REFUSED' : 'ERR_FLOW_UNREACHABLE';
      finish(new PosternError(code, `the workload does not listen: ${cause.message}`, { cause }));
    };
    const onGone = (): void => finish(new PosternError('ERR_TRANSPORT_ABORTED', 'the client went away'));
    const timer = setTimeout(() => {
      finish(new PosternError('ERR_FLOW_TIMEOUT', `the workload at port ${to.port} does not accept`));
    }, WORKLOAD_CONNECT_TIMEOUT_MS);
    local.once('connect', onConnect).once('error', onError);
    stream.once('close', onGone);
  });
}
