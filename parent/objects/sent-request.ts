import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import type { ClientRequest } from 'node:http';

interface Watch {
  request: ClientRequest | undefined;
}

const watches = new AsyncLocalStorage<Watch>();

subscribe('http.client.request.created', (message) => {
  const watch = watches.getStore();
  if (watch !== undefined) watch.request = (message as { readonly request: ClientRequest }).request;
});

/**
 * Runs something that makes one HTTP request by way of a client that shows no more than the answer, and tells whether the
 * system had taken every byte of it by then. A server may answer before; then the body's memory is still being read.
 */
export async function whetherSent<T>(
  run: () => Promise<T>,
): Promise<{ readonly answer: T; readonly isSent: boolean }> {
  const watch: Watch = { request: undefined };
  const answer = await watches.run(watch, run);
  return { answer, isSent: watch.request?.writableFinished === true };
}
