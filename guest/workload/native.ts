import koffi from 'koffi';
import { PosternError } from '../../shared/errors.ts';

/** linux/prctl.h */
const PR_SET_DUMPABLE = 4;
const PR_SET_CHILD_SUBREAPER = 36;
const PR_SET_NO_NEW_PRIVS = 38;
/** linux/wait.h */
const P_ALL = 0;
const P_PID = 1;
const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x0100_0000;
/** asm-generic/siginfo.h: 128 bytes, `si_pid` at 16 on 64-bit machines. */
const SIGINFO_BYTES = 128;
const SI_PID_OFFSET = 16;

/** The few calls that Node has no API for. */
export interface ProcessCalls {
  /** Orphans of our children become our children, and are ours to reap. */
  becomeSubreaper(): void;
  /** No other process of our user may read our memory (ptrace, /proc/PID/mem), which holds the key. */
  hideMemory(): void;
  /** Neither we nor our children gain rights by running a set-user-id program. */
  forbidPrivilegeGain(): void;
  /** The pid of a child that has ended and is not reaped yet, 0 if there is none. It stays as it is. */
  peekEnded(): number;
  /** Reaps this child, if it has ended. */
  reap(pid: number): void;
}

/** @throws PosternError ERR_TRANSPORT_UNSUPPORTED where the C library cannot be called */
export function loadProcessCalls(): ProcessCalls {
  try {
    // The library that Node itself runs on, whichever it is (glibc, musl).
    const library = koffi.load(null);
    const prctl = library.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)');
    const waitid = library.func('int waitid(int, uint32_t, void *, int)');
    const wait = (kind: number, pid: number, options: number): number => {
      const info = Buffer.alloc(SIGINFO_BYTES);
      const failed = waitid(kind, pid, info, WEXITED | WNOHANG | options) !== 0;
      return failed ? 0 : info.readInt32LE(SI_PID_OFFSET);
    };
    return {
      becomeSubreaper: () => void prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0),
      hideMemory: () => void prctl(PR_SET_DUMPABLE, 0, 0, 0, 0),
      forbidPrivilegeGain: () => void prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
      peekEnded: () => wait(P_ALL, 0, WNOWAIT),
      reap: (pid) => void wait(P_PID, pid, 0),
    };
  } catch (cause) {
    throw new PosternError('ERR_TRANSPORT_UNSUPPORTED', 'the C library cannot be called', { cause });
  }
}
