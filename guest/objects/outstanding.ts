import type { PosternError } from '../../shared/errors.ts';
import { abandonBody } from '../../shared/objects/bodies.ts';
import { ambiguous } from '../../shared/objects/failure.ts';
import type { ObjectReply, ObjectRequest } from '../../shared/wire/object.ts';

export interface Answer {
  readonly reply: ObjectReply;
  /** What followed `found` or `page`, of exactly the size that the reply said; else empty. */
  readonly body: Buffer;
}

/** A request under way. */
export interface Outstanding {
  readonly request: ObjectRequest;
  /** The body of a PUT; dropped when the caller gave up. */
  sending: Buffer;
  /** The body was handed to the writer. */
  started: boolean;
  /** The kernel has every byte of it. */
  isWritten: boolean;
  granted: boolean;
  /** Undefined once the caller has its answer, or gave up: then the rest is read and dropped. */
  settle: { resolve(answer: Answer): void; reject(error: PosternError): void } | undefined;
  /** A reply whose body is coming in. */
  arriving:
    | { readonly reply: ObjectReply; readonly sizeBytes: number; body: Buffer; filledBytes: number }
    | undefined;
  cancelTimer: NodeJS.Timeout | undefined;
}

export function newOutstanding(
  request: ObjectRequest,
  sending: Buffer,
  settle: NonNullable<Outstanding['settle']>,
): Outstanding {
  return {
    request,
    sending,
    started: false,
    isWritten: false,
    granted: false,
    settle,
    arriving: undefined,
    cancelTimer: undefined,
  };
}

/**
 * A parent may answer, or lose, a PUT whose last bytes the kernel has not taken yet, and read what their memory holds by
 * then. So nothing else is ever put into that.
 */
export function letGo({ sending, started, isWritten }: Outstanding): void {
  if (started && !isWritten) abandonBody(sending);
}

/** What the loss of an answer means for its caller, by whether it was a PUT whose last byte went. */
export function lossOf(sent: boolean, error: PosternError): PosternError {
  return sent ? ambiguous(error.message, error) : error;
}
