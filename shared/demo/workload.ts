import { createServer, request } from 'node:http';
import { connect } from 'node:net';

/**
 * A program of the demo: the workload in the guest. It tries one destination after the other, says on standard
 * output how each went (one JSON object a line), then serves web requests until it is told to stop.
 * Arguments: the address and the web port of the world, the port to serve on.
 */
const [worldAddress = '', webPort = '', servePort = ''] = process.argv.slice(2);
// NODE_USE_ENV_PROXY makes Node's own fetch use the proxy that the agent put into the environment.
const proxy = new URL(process.env['HTTPS_PROXY'] ?? 'http://127.0.0.1:3128');

/** One line of what the workload says. */
export interface Attempt {
  readonly step: 'allowed' | 'refused' | 'direct' | 'serving';
  readonly target: string;
  readonly result: string;
}

function say(attempt: Attempt): void {
  process.stdout.write(`${JSON.stringify(attempt)}\n`);
}

async function fetchText(url: string): Promise<string> {
  try {
    const response = await fetch(url);
    return `${response.status} ${(await response.text()).trim()}`;
  } catch (error) {
    return error instanceof Error ? `${error.message}: ${String(error.cause)}` : String(error);
  }
}

/** The proxy's answer to CONNECT, with the reason that it gives. */
function askProxy(target: string): Promise<string> {
  return new Promise((resolve) => {
    const asked = request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: target });
    asked.on('error', (error) => resolve(error.message));
    asked.on('connect', (response, socket) => {
      socket.destroy();
      resolve(`${response.statusCode} ${response.headers['proxy-status'] ?? ''}`);
    });
    asked.end();
  });
}

function connectDirectly(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, host, () => {
      socket.destroy();
      resolve('connected');
    });
    socket.on('error', (error) => resolve((error as NodeJS.ErrnoException).code ?? error.message));
  });
}

const allowed = `https://api.example.com:${webPort}/`;
say({ step: 'allowed', target: allowed, result: await fetchText(allowed) });
for (const target of [`evil.example.net:${webPort}`, 'api.example.com:8443', '169.254.169.254:80']) {
  say({ step: 'refused', target, result: await askProxy(target) });
}
const direct = await connectDirectly(worldAddress, Number(webPort));
say({ step: 'direct', target: `${worldAddress}:${webPort}`, result: direct });
createServer((_request, response) => {
  response.end('hello from inside the enclave\n');
}).listen(Number(servePort), '127.0.0.1', () => say({ step: 'serving', target: '', result: '' }));
