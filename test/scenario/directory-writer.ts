import { openDirectoryStore } from '../../parent/objects/directory.ts';
import { seededRandom } from '../../shared/objects/random.ts';
import { bodyOf, keyOf } from './directory-objects.ts';

/**
 * Writes objects into a directory store until it is killed: FOLDER NAME SEED. Says `created KEY` or `exists KEY` of
 * each when the store has answered, in one write of a short line, which a kill cannot cut.
 */
const [folder = '', name = '', seed = ''] = process.argv.slice(2);
const store = await openDirectoryStore(folder);
const random = seededRandom(Number(seed));
let next = 0;

async function write(): Promise<never> {
  for (;;) {
    const index = next;
    next += 1;
    const key = keyOf(index);
    const answer = await store.putIfAbsent(key, bodyOf(key, name, Math.floor(random() * 300_000)));
    process.stdout.write(`${answer} ${key}\n`);
    if (random() < 0.05 && index > 10) await store.delete(`never/${index}`);
  }
}

await Promise.all([write(), write(), write(), write()]);
