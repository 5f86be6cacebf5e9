/** What the program's exit codes mean, for every subcommand; `postern guest -- CMD` exits with CMD's own. */
export const EXIT = {
  /** Done, or the answer is yes. */
  ok: 0,
  /** It failed, or the answer is no. */
  failed: 1,
  /** Bad input: nothing was started. */
  badInput: 2,
} as const;
