import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SERVER_ADDRESSES, type ServerName, zoneFile } from './zones.ts';

/** Every TTL of these zones, negative ones included: what a cache may know of the time before a step. */
export const TTL_SECONDS = 1;
/** The first signatures end soon, the later ones do not. */
const PERIOD_FIRST = ['-s', '-3600', '-e', 'now+3600'];
const PERIOD = ['-s', '-3600', '-e', 'now+86400'];

/** A zone whose keys change while it is served. Times of keys are their own metadata, which BIND’s signer goes by. */
export class RolledZone {
  readonly name: string;
  readonly server: ServerName;
  readonly algorithm: string;
  /** DS records that its parent has for it. */
  ds: readonly string[] = [];
  /** Records of its own, below its apex: data, or delegations. */
  records: readonly string[];
  serial = 0;
  readonly #folder: string;
  readonly #keys: string;

  constructor(folder: string, name: string, server: ServerName, records: readonly string[]) {
    this.name = name;
    this.server = server;
    this.algorithm = 'ECDSAP256SHA256';
    this.records = records;
    this.#folder = folder;
    this.#keys = join(folder, `keys${name}`);
    mkdirSync(this.#keys);
  }

  /** A new key’s file name. Without times it is published and signs at once. */
  async newKey(kind: 'KSK' | 'ZSK', algorithm = this.algorithm, ...times: string[]): Promise<string> {
    const flags = kind === 'KSK' ? ['-f', 'KSK'] : [];
    return this.#run('dnssec-keygen', '-K', this.#keys, '-a', algorithm, ...times, ...flags, this.name);
  }

  async setTimes(key: string, ...times: string[]): Promise<void> {
    await this.#run('dnssec-settime', '-K', this.#keys, ...times, key);
  }

  async dsOf(key: string): Promise<string> {
    return this.#run('dnssec-dsfromkey', '-2', join(this.#keys, key));
  }

  /** What a parent has to say of it. */
  get delegation(): string[] {
    return [
      `${this.name} NS ns.${this.name}`,
      `ns.${this.name} A ${SERVER_ADDRESSES[this.server]}`,
      ...this.ds,
    ];
  }

  /** Signs with the keys whose time it is. */
  async sign(): Promise<void> {
    const period = this.serial === 0 ? PERIOD_FIRST : PERIOD;
    const plain = await this.#write([]);
    await this.#run(
      'dnssec-signzone',
      '-S',
      '-P',
      '-K',
      this.#keys,
      ...period,
      '-o',
      this.name,
      '-f',
      this.#signed,
      plain,
    );
  }

  /** Signs with some keys and publishes others, as an algorithm’s rollover needs (RFC 6781 section 4.1.4). */
  async signWith(signing: readonly string[], published: readonly string[]): Promise<void> {
    const paths = (keys: readonly string[]): string[] => keys.map((key) => join(this.#keys, key));
    const dnskeys = await Promise.all(paths(published).map((path) => readFile(`${path}.key`, 'utf8')));
    const plain = await this.#write(dnskeys);
    await this.#run('ldns-signzone', '-d', '-o', this.name, '-f', this.#signed, plain, ...paths(signing));
  }

  get #signed(): string {
    return zoneFile(this.#folder, { name: this.name, server: this.server, algorithm: this.algorithm });
  }

  async #write(more: readonly string[]): Promise<string> {
    this.serial += 1;
    const host = this.name === '.' ? 'ns.' : `ns.${this.name}`;
    const soa = `${host} ${host} ${this.serial} 3600 900 604800 ${TTL_SECONDS}`;
    const head = [`$ORIGIN ${this.name}`, `$TTL ${TTL_SECONDS}`, `@ SOA ${soa}`, `@ NS ${host}`];
    const plain = join(this.#folder, `zone${this.name}plain`);
    const lines = [...head, `${host} A ${SERVER_ADDRESSES[this.server]}`, ...this.records, ...more];
    await writeFile(plain, `${lines.join('\n')}\n`);
    return plain;
  }

  async #run(program: string, ...args: readonly string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(program, args, { cwd: this.#folder });
    return stdout.trim();
  }
}
