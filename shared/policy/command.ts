import { Command } from 'commander';
import { EXIT } from '../cli/exit.ts';
import { formatProblem, isPosternError, PosternError, type Problem } from '../errors.ts';
import { compilePolicy } from './compile.ts';
import { describePolicy } from './describe.ts';
import { policyDigest } from './digest.ts';
import { explain, explanationJson, explanationText } from './explain.ts';
import { readPolicy } from './policy.ts';
import { type ExplainOptions, readQuestion } from './question.ts';

/** `postern policy`: says what a policy file means, without starting anything. */
export function command(): Command {
  const policy = new Command('policy').description('check a policy, or explain what it decides');
  policy
    .command('check')
    .description('read policy files and list every mistake, or what they allow')
    .argument('<file...>', 'policy files, YAML or JSON')
    .option('--json', 'one JSON object on standard output')
    .addHelpText('after', CHECK_HELP)
    .action((files: string[], options: { json?: boolean }) => check(files, options.json ?? false));
  policy
    .command('explain')
    .description('say whether a policy allows a destination, by which rule and why')
    .argument('<file>', 'policy file, YAML or JSON')
    .requiredOption('--to <host:port>', 'destination; IPv6 in brackets; the port may be left out for icmp')
    .option('--protocol <protocol>', 'tcp, udp or icmp', 'tcp')
    .option('--address <ip...>', 'what the name resolved to; may be repeated')
    .option('--dnssec <state>', 'how the answer validated: secure, insecure, bogus or indeterminate')
    .option('--json', 'one JSON object on standard output')
    .addHelpText('after', EXPLAIN_HELP)
    .action((file: string, options: ExplainOptions & { json?: boolean }) => explainOne(file, options));
  return policy;
}

const CHECK_HELP = `
Examples:
  postern policy check policies/one-api.yaml
  postern policy check --json policy.yaml | jq .files[0].digest

Exit codes: 0 every file is valid, 2 some file has mistakes; all of them are listed with line and path.`;

const EXPLAIN_HELP = `
Examples:
  postern policy explain policy.yaml --to api.example.com:443
  postern policy explain policy.yaml --to api.example.com:443 --address 192.0.2.7 --dnssec secure
  postern policy explain policy.yaml --to '[2001:db8::1]:443' --json
  postern policy explain policy.yaml --to 10.20.0.1 --protocol icmp

A name alone asks whether it may be resolved and dialled on that port at all; with --address it asks for the final
decision. With several addresses the verdict is allow when at least one is allowed: only those would be dialled.

Exit codes: 0 allow, 1 deny, 2 bad input.`;

async function check(files: readonly string[], json: boolean): Promise<void> {
  const results = [];
  const failures: PosternError[] = [];
  for (const file of files) {
    try {
      results.push({ file, policy: await readPolicy(file), problems: [] });
    } catch (error) {
      if (!isPosternError(error)) throw error;
      failures.push(error);
      const unreadable: Problem = { path: '', found: error.message, expected: 'a file that can be read' };
      results.push({ file, problems: error.problems.length > 0 ? error.problems : [unreadable] });
    }
  }
  if (json) {
    const listed = results.map(({ file, policy, problems }) => ({
      file,
      valid: policy !== undefined,
      ...(policy === undefined ? {} : { digest: policyDigest(policy).toString('hex') }),
      problems,
    }));
    process.stdout.write(`${JSON.stringify({ valid: failures.length === 0, files: listed })}\n`);
    if (failures.length > 0) process.exitCode = EXIT.badInput;
    return;
  }
  for (const { file, policy } of results) {
    if (policy === undefined) continue;
    const digest = `  digest sha256:${policyDigest(policy).toString('hex')}`;
    process.stdout.write(`${[`${file}: valid`, ...describePolicy(policy), digest].join('\n')}\n`);
  }
  if (failures.length > 0) throw joined(failures);
}

async function explainOne(file: string, options: ExplainOptions & { json?: boolean }): Promise<void> {
  const reading = readQuestion(options);
  const failures: PosternError[] = [];
  if ('problems' in reading) failures.push(badArguments(reading.problems));
  const policy = await readPolicy(file).catch((error: unknown) => {
    if (!isPosternError(error)) throw error;
    failures.push(error);
    return undefined;
  });
  if (failures.length > 0 || policy === undefined || 'problems' in reading) throw joined(failures);
  const compiled = compilePolicy(policy);
  const explanation = explain(compiled, reading.question);
  process.stdout.write(
    options.json
      ? `${JSON.stringify(explanationJson(explanation))}\n`
      : explanationText(compiled, explanation),
  );
  process.exitCode = explanation.decision.verdict === 'allow' ? EXIT.ok : EXIT.failed;
}

function badArguments(problems: readonly Problem[]): PosternError {
  const lines = problems.map((problem) => formatProblem(problem, 'command line'));
  return new PosternError('ERR_CONFIG_INVALID', lines.join('\n'), { problems });
}

function joined(failures: readonly PosternError[]): PosternError {
  const message = failures.map((failure) => failure.message).join('\n');
  const problems = failures.flatMap((failure) => failure.problems);
  return new PosternError(failures[0]?.code ?? 'ERR_CONFIG_INVALID', message, { problems });
}
