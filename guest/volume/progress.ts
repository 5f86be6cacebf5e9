import { performance } from 'node:perf_hooks';

/** What is being done now, and how far it is: a word for a person, and counts. */
export interface Step {
  readonly step: string;
  readonly [count: string]: number | string;
}
export type Progress = (step: Step) => void;

/** A person reads no faster. */
const TERMINAL_PERIOD_MS = 100;
/** Lines, for logs and machines: one now and then. */
const LINE_PERIOD_MS = 1000;

export interface ProgressOutput {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

export interface ShownProgress {
  readonly show: Progress;
  /** Leaves a clean line. */
  end(): void;
}

/**
 * Progress on standard error: one line that is rewritten on a terminal, elsewhere a line now and then, as JSON where machines
 * read. Of each step the first word is always told.
 */
export function progressOn(output: ProgressOutput, json: boolean): ShownProgress {
  const isTerminal = output.isTTY === true && !json;
  const periodMs = isTerminal ? TERMINAL_PERIOD_MS : LINE_PERIOD_MS;
  let lastMs = Number.NEGATIVE_INFINITY;
  let lastStep: string | undefined;
  let isDirty = false;
  return {
    show(step) {
      const nowMs = performance.now();
      if (step.step === lastStep && nowMs - lastMs < periodMs) return;
      lastMs = nowMs;
      lastStep = step.step;
      isDirty = isTerminal;
      if (json) output.write(`${JSON.stringify({ progress: step })}\n`);
      else output.write(isTerminal ? `\r\x1b[K${textOf(step)}` : `${textOf(step)}\n`);
    },
    end() {
      if (isDirty) output.write('\r\x1b[K');
      isDirty = false;
    },
  };
}

function textOf({ step, ...counts }: Step): string {
  const words = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
  return words.length === 0 ? step : `${step}: ${words.join(', ')}`;
}
