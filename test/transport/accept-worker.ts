import { parentPort, workerData } from 'node:worker_threads';
import type { TransportAddress } from '../../shared/transport/address.ts';
import { acceptStreams } from '../../shared/transport/connect.ts';

const { fd, address, number }: { fd: number; address: TransportAddress; number: number } = workerData;
const listener = acceptStreams(fd, address, (stream) => stream.end(`worker ${number}`));
parentPort?.once('message', () => void listener.close());
parentPort?.postMessage('accepting');
