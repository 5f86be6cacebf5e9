import * as v from 'valibot';
import { VOLUME_MAX_BYTES } from '../volume/limits.ts';

const NAME_MAX_CHARS = 64;
const name = v.pipe(v.string(), v.minLength(1), v.maxLength(NAME_MAX_CHARS));
const size = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(VOLUME_MAX_BYTES));

/** What the agent's own user may have done with a volume that the agent has attached. */
export const orderSchema = v.variant('order', [
  v.strictObject({ order: v.literal('resize'), volume: name, sizeBytes: size }),
  v.strictObject({ order: v.literal('snapshot'), volume: name, snapshot: name }),
  v.strictObject({ order: v.literal('drop-snapshot'), volume: name, snapshot: name }),
]);

export type VolumeOrder = v.InferOutput<typeof orderSchema>;

/** What came of it. */
export interface OrderDone {
  /** The size of the volume now. */
  readonly sizeBytes: number;
  /** Where the kernel has it. */
  readonly device?: string;
}
