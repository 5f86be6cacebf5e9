import { FileAnchor } from '../../../guest/counter/file.ts';
import type { Relay } from '../../../guest/objects/client.ts';
import { connectRelay } from '../../../guest/objects/client.ts';
import type { VolumeAccess } from '../../../guest/volume/create.ts';
import { systemEnvironment } from '../../../guest/volume/environment.ts';
import { createLogger } from '../../../shared/log.ts';
import { connectStream } from '../../../shared/transport/connect.ts';

/** Where a volume of these tests is: the parent's socket, and the folder of its anchor. */
export interface VolumePlace {
  readonly parentSocket: string;
  readonly anchorFolder: string;
}

export const VOLUME_PREFIX = 'guest/data';

/** The volume's store through the relay, with the production's own limits. The caller closes the relay. */
export function openPlace(place: VolumePlace): { readonly access: VolumeAccess; readonly relay: Relay } {
  const relay = connectRelay({ open: () => connectStream({ kind: 'unix', path: place.parentSocket }) });
  const access = {
    store: relay.store,
    prefix: VOLUME_PREFIX,
    name: 'data',
    keyProvider: { kind: 'test', rootKey: async () => Buffer.alloc(32, 7) },
    anchor: new FileAnchor(place.anchorFolder),
    environment: systemEnvironment(createLogger('volume', 'json', 'error')),
  };
  return { access, relay };
}
