/** Passed on to the workload. SIGCHLD is the reaper's; the others cannot be caught or mean a fault of our own. */
export const FORWARDED_SIGNALS = [
  'SIGTERM',
  'SIGINT',
  'SIGHUP',
  'SIGQUIT',
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
  'SIGWINCH',
  'SIGCONT',
] as const satisfies readonly NodeJS.Signals[];
/** A terminal sends these to the whole foreground group by itself; passed on, the workload would get them twice. */
const TERMINAL_SIGNALS: ReadonlySet<NodeJS.Signals> = new Set(['SIGINT', 'SIGQUIT', 'SIGWINCH']);

/** Catches the process's signals; keeps those that come before there is somebody to send them to. */
export class SignalForwarder {
  readonly #early: NodeJS.Signals[] = [];
  #send: ((signal: NodeJS.Signals) => void) | undefined;

  constructor() {
    for (const signal of FORWARDED_SIGNALS) process.on(signal, this.#onSignal);
  }

  forwardTo(send: (signal: NodeJS.Signals) => void): void {
    this.#send = send;
    for (const signal of this.#early.splice(0)) send(signal);
  }

  close(): void {
    for (const signal of FORWARDED_SIGNALS) process.off(signal, this.#onSignal);
  }

  readonly #onSignal = (signal: NodeJS.Signals): void => {
    if (process.stdin.isTTY && TERMINAL_SIGNALS.has(signal)) return;
    if (this.#send !== undefined) this.#send(signal);
    else if (!this.#early.includes(signal)) this.#early.push(signal);
  };
}
