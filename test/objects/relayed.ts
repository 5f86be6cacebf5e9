import { connectRelay, type Relay, type RelayOptions } from '../../guest/objects/client.ts';
import { ObjectService, type ObjectServiceOptions } from '../../parent/objects/service.ts';
import type { ObjectStore } from '../../shared/objects/store.ts';
import { streamPair } from '../../shared/transport/pair.ts';

/** A store seen through the relay: guest client, unix socketpair, parent service, in one process. */
export function relayed(
  store: ObjectStore,
  options: Partial<ObjectServiceOptions & RelayOptions> = {},
): Relay & { readonly service: ObjectService } {
  const service = new ObjectService({ store, ...options });
  const relay = connectRelay({
    async open() {
      const [guest, parent] = streamPair();
      void service.serve(parent);
      return guest;
    },
    ...options,
  });
  return { ...relay, service };
}
