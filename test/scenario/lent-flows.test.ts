import { fileURLToPath } from 'node:url';

// The same flows through the same two processes, each lent to a thread at once.
const preload = fileURLToPath(new URL('../flow/lend-at-once.ts', import.meta.url));
process.env['NODE_OPTIONS'] = `--import=${preload}`;
await import('./flows.test.ts');
