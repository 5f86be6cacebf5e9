import { readFileSync } from 'node:fs';
import { keepMemorySmall } from '../../../guest/disk/process-memory.ts';
import { parseAnchors, TrustAnchors } from '../../../guest/dns/anchors.ts';
import { LeaseTable } from '../../../guest/dns/leases.ts';
import { namePolicy } from '../../../guest/dns/serve/name-policy.ts';
import { Responder } from '../../../guest/dns/serve/responder.ts';
import { DnsServer } from '../../../guest/dns/serve/server.ts';
import { DIRECT, resolverFor } from '../../../guest/dns/upstream/resolvers.ts';
import { Validator } from '../../../guest/dns/validator.ts';
import { compilePolicy } from '../../../shared/policy/compile.ts';
import { parsePolicy } from '../../../shared/policy/policy.ts';

/** Our resolver as the agent runs it: `contestant.ts ANCHOR UPSTREAM-PORT PORT`. */
const [anchorFile = '', upstreamPort = '', port = ''] = process.argv.slice(2);
const upstream = { address: '127.0.0.1', port: Number(upstreamPort), protocol: 'plain' } as const;
keepMemorySmall();
const validator = new Validator({
  resolvers: [resolverFor(upstream, DIRECT)],
  anchors: new TrustAnchors(parseAnchors(readFileSync(anchorFile, 'utf8'), anchorFile)),
  clock: () => Math.floor(Date.now() / 1000),
  monotonic: () => performance.now() / 1000,
});
const small = Array.from({ length: 1_000 }, (_, index) => `www.z${index}.bench`);
const allow = [{ fqdn: ['**.names.bench', ...small], ports: 443 }];
const policy = JSON.stringify({ version: 1, egress: { allow } });
const responder = new Responder({
  validator,
  policy: namePolicy(compilePolicy(parsePolicy(policy, 'bench'))),
  leases: new LeaseTable(),
});
await new DnsServer(responder).listen({ address: '127.0.0.1', port: Number(port) });
process.stdout.write('ready\n');
