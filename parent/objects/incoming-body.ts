import { allocateBody } from '../../shared/objects/bodies.ts';

/** The body of a PUT while it comes in. */
export interface IncomingBody {
  readonly bytes: Buffer;
  filledBytes: number;
  readonly complete: PromiseWithResolvers<void>;
}

/** The guest took its PUT back before its body was whole. */
export class Cancelled extends Error {}

export function incomingBody(sizeBytes: number): IncomingBody {
  const complete = Promise.withResolvers<void>();
  // A body that is given up while nobody waits for it yet is no unhandled rejection.
  complete.promise.catch(() => {});
  if (sizeBytes === 0) complete.resolve();
  return { bytes: allocateBody(sizeBytes), filledBytes: 0, complete };
}

/** Adds a piece; false when the body has no place for it. */
export function fillBody(body: IncomingBody, piece: Buffer): boolean {
  if (body.filledBytes + piece.length > body.bytes.length) return false;
  piece.copy(body.bytes, body.filledBytes);
  body.filledBytes += piece.length;
  if (body.filledBytes === body.bytes.length) body.complete.resolve();
  return true;
}
