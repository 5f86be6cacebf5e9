import { isPosternError, type PosternError } from '../../shared/errors.ts';
import type { Authenticator } from './authenticate.ts';
import type { Work } from './limits.ts';
import type { DomainName } from './name.ts';
import type { Questioner } from './questioner.ts';
import type { Response } from './rrset.ts';
import { readStep, type Step } from './step.ts';
import { TYPE } from './types.ts';

/** Names above an alias that are asked for a DNAME: reorganised trees are moved near their top. */
const ANCESTORS_MAX_COUNT = 4;

/**
 * Proves an alias whose DNAME was not sent with it. A cache may keep the CNAME that it made (RFC 6672 section 3.1)
 * a little longer than the signed DNAME which it was made from; the DNAME is then asked for by itself.
 * @throws PosternError `fault`, where the alias is no such one
 */
export async function throughLostDname(
  fault: PosternError,
  response: Response,
  name: DomainName,
  type: number,
  questioner: Questioner,
  authenticator: Authenticator,
  work: Work,
): Promise<{ step: Step; response: Response }> {
  const cname = response.answer.find(name, TYPE.CNAME);
  if (cname === undefined || cname.signatures.length > 0) throw fault;
  let above = name.parent();
  for (let count = 0; count < ANCESTORS_MAX_COUNT && above.labelCount > 0; count += 1) {
    const isFound = (one: Response): Response | undefined =>
      one.answer.find(above, TYPE.DNAME) === undefined ? undefined : one;
    try {
      const found = await questioner.ask(above, TYPE.DNAME, work, isFound);
      if (found !== undefined) {
        return { step: await readStep(found, name, type, authenticator, work), response: found };
      }
    } catch (error) {
      if (!isPosternError(error) || error.code === 'ERR_DNS_LIMIT') throw error;
    }
    above = above.parent();
  }
  throw fault;
}
