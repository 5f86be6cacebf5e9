import { isPosternError } from '../../shared/errors.ts';
import type { OrderDone, VolumeOrder } from '../status/order.ts';
import { askStatus, giveOrder } from '../status/socket.ts';

/**
 * Has the agent of this guest do it, where it serves the volume. Undefined where no agent answers, or has another volume: the
 * volume is then attached for the command.
 * @throws PosternError what the agent failed with
 */
export async function throughAgent(
  socket: string | undefined,
  order: VolumeOrder,
): Promise<OrderDone | undefined> {
  if (socket === undefined || !(await serves(socket, order.volume))) return undefined;
  return giveOrder(socket, order);
}

async function serves(socket: string, name: string): Promise<boolean> {
  try {
    const { volumes } = await askStatus(socket);
    return volumes.some((volume) => volume.name === name && volume.state === 'serving');
  } catch (error) {
    if (!isPosternError(error, 'ERR_TRANSPORT_REFUSED')) throw error;
    return false;
  }
}
