import { request } from 'node:http';
import { Command } from 'commander';
import { PosternError } from '../../shared/errors.ts';
import { DEFAULT_ADMIN } from '../config/schema.ts';
import { formatTcpAddress, parseTcpAddress, type TcpAddress } from '../tcp/address.ts';

const TIMEOUT_MS = 10_000;
/** The parent's answers here are one line. */
const ANSWER_MAX_BYTES = 4096;

const HELP = `
A guest registers a new session key each time it boots, and the parent takes the first key only: a process in the
guest that dials the parent must not pass for the agent. After a real reboot, release the guest before its workload
starts: the next key that registers is taken for it. A session that is live is ended.

Example:
  postern parent release web --admin 127.0.0.1:9464`;

export function command(): Command {
  return new Command('release')
    .description('forget the session key of a guest that was rebooted')
    .argument('<guest>', 'its name in the configuration')
    .option('--admin <address>', 'the admin address of the running parent', DEFAULT_ADMIN)
    .addHelpText('after', HELP)
    .action(async (guest: string, flags: { readonly admin: string }) => {
      process.stdout.write(await release(guest, parseTcpAddress(flags.admin)));
    });
}

/** The parent's word on it. @throws PosternError ERR_ADMIN_FAILED */
export function release(guest: string, admin: TcpAddress): Promise<string> {
  const path = `/guests/${encodeURIComponent(guest)}/release`;
  return new Promise((resolve, reject) => {
    const fail = (detail: string, cause?: unknown): void => {
      const text = `POST http://${formatTcpAddress(admin)}${path}: ${detail}`;
      reject(new PosternError('ERR_ADMIN_FAILED', text, { cause }));
    };
    const call = request({
      host: admin.host,
      port: admin.port,
      path,
      method: 'POST',
      timeout: TIMEOUT_MS,
      agent: false,
    });
    call.on('timeout', () => call.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    call.on('error', (error) => fail(error.message, error));
    call.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece: string) => {
        text = (text + piece).slice(0, ANSWER_MAX_BYTES);
      });
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text);
        else fail(`${response.statusCode} ${text.trim()}`);
      });
    });
    call.end();
  });
}
