import { openDirectoryStore } from '../../parent/objects/directory.ts';
import { ObjectService } from '../../parent/objects/service.ts';
import { listenStream } from '../../shared/transport/connect.ts';

/** Serves a directory store to whoever connects, until it is killed: FOLDER SOCKET. */
const [folder = '', path = ''] = process.argv.slice(2);
const service = new ObjectService({ store: await openDirectoryStore(folder) });
await listenStream({ kind: 'unix', path }, (stream) => void service.serve(stream));
process.stdout.write('ready\n');
