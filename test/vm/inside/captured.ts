import { Resolver } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { get } from 'node:https';
import { requireVm } from './guard.ts';

requireVm();

/** A program in the guest that knows of no proxy: it asks the agent for names and fetches from what it is told. */
const [port = '', certificateFile = ''] = process.argv.slice(2);
const ca = readFileSync(certificateFile);
const resolver = new Resolver();
resolver.setServers(['127.0.0.1']);

export interface CapturedResult {
  readonly name: string;
  readonly outcome: string;
}

async function fetchFrom(host: string, servername: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = get({ host, port: Number(port), servername, ca }, (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('end', () => resolve(`${response.statusCode} ${Buffer.concat(pieces)}`.trim()));
    });
    asked.on('error', reject);
  });
}

for (const name of ['api.example.com', 'evil.example.net']) {
  let outcome: string;
  try {
    const [address = ''] = await resolver.resolve4(name);
    outcome = `${address} ${await fetchFrom(address, name)}`;
  } catch (error) {
    outcome = (error as NodeJS.ErrnoException).code ?? String(error);
  }
  process.stdout.write(`${JSON.stringify({ name, outcome } satisfies CapturedResult)}\n`);
}
