import { readFile } from 'node:fs/promises';
import { PosternError } from '../../shared/errors.ts';

export interface Account {
  readonly uid: number;
  readonly gid: number;
}

interface AccountConfig {
  readonly user?: string | number | undefined;
  readonly group?: string | number | undefined;
}

/**
 * Whom the workload runs as: undefined when the configuration names nobody. Reads /etc/passwd and /etc/group, which
 * is all that a guest has. @throws PosternError ERR_WORKLOAD_ACCOUNT
 */
export async function findAccount(config: AccountConfig, etc = '/etc'): Promise<Account | undefined> {
  const { user, group } = config;
  if (user === undefined && group === undefined) return undefined;
  const entry = user === undefined ? undefined : await findEntry(`${etc}/passwd`, user);
  const uid = user === undefined ? process.geteuid?.() : idOf(user, entry);
  if (uid === undefined) throw unknown('user', user);
  if (group === undefined) {
    if (entry === undefined) {
      throw new PosternError(
        'ERR_WORKLOAD_ACCOUNT',
        `user ${user} is not in ${etc}/passwd: name a group as well`,
      );
    }
    return { uid, gid: Number(entry[3]) };
  }
  const gid = typeof group === 'number' ? group : idOf(group, await findEntry(`${etc}/group`, group));
  if (gid === undefined) throw unknown('group', group);
  return { uid, gid };
}

/** The fields of a line `name:x:id:…` by its name or number. */
async function findEntry(file: string, key: string | number): Promise<readonly string[] | undefined> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const field = typeof key === 'number' ? 2 : 0;
  return text
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => fields.length > 3 && fields[field] === String(key));
}

function idOf(key: string | number, entry: readonly string[] | undefined): number | undefined {
  if (typeof key === 'number') return key;
  return entry === undefined || !/^\d+$/.test(entry[2] ?? '') ? undefined : Number(entry[2]);
}

function unknown(what: string, name: unknown): PosternError {
  return new PosternError('ERR_WORKLOAD_ACCOUNT', `there is no ${what} ${String(name)} in this guest`);
}
