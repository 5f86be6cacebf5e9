import { createS3Store } from '../../../parent/objects/s3.ts';
import { ObjectService } from '../../../parent/objects/service.ts';
import { listenStream } from '../../../shared/transport/connect.ts';

/** A parent that relays a bucket to whoever connects, until it is killed: SOCKET, and the store's options as JSON. */
const [path = '', options = ''] = process.argv.slice(2);
const service = new ObjectService({ store: createS3Store(JSON.parse(options)).store });
await listenStream({ kind: 'unix', path }, (stream) => void service.serve(stream));
process.stdout.write('ready\n');
