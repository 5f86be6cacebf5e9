/** A program of the demo: a client on the internet. It fetches its argument and says how that went, in one line. */
try {
  const response = await fetch(process.argv[2] ?? '');
  process.stdout.write(`${response.status} ${(await response.text()).trim()}\n`);
} catch (error) {
  process.stdout.write(
    `${error instanceof Error ? `${error.message}: ${String(error.cause)}` : String(error)}\n`,
  );
}
