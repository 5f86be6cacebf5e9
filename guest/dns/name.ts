import { PosternError } from '../../shared/errors.ts';

/** RFC 1035 section 2.3.4. */
export const NAME_MAX_BYTES = 255;
export const LABEL_MAX_BYTES = 63;

/**
 * A domain name as the octets of its uncompressed wire form in canonical case (RFC 4034 section 6.2: A to Z lowered).
 * It is never a dotted string inside: a label may hold any octet, a dot included. `key` carries those octets one to
 * a character (latin1), so equal names have equal keys and keys compare as octets do. Immutable.
 */
export class DomainName {
  readonly key: string;
  /** Labels without the root's empty one: 0 for the root. */
  readonly labelCount: number;
  readonly #offsets: readonly number[];

  private constructor(key: string, offsets: readonly number[]) {
    this.key = key;
    this.#offsets = offsets;
    this.labelCount = offsets.length;
  }

  /** From canonical uncompressed wire octets, already checked by who read them. */
  static fromKey(key: string): DomainName {
    const offsets: number[] = [];
    for (let at = 0; key.charCodeAt(at) !== 0; at += key.charCodeAt(at) + 1) offsets.push(at);
    return new DomainName(key, offsets);
  }

  /**
   * From presentation form (RFC 1035 section 5.1: `\.` and `\DDD` escapes); a missing last dot is supplied.
   * @throws PosternError ERR_DNS_NAME
   */
  static parse(text: string): DomainName {
    if (text === '.') return ROOT;
    const labels = splitLabels(text);
    let key = '';
    for (const label of labels) {
      if (label.length === 0 || label.length > LABEL_MAX_BYTES) throw badName(text);
      key += String.fromCharCode(label.length) + lowerCase(label);
    }
    key += '\0';
    if (key.length > NAME_MAX_BYTES || labels.length === 0) throw badName(text);
    return DomainName.fromKey(key);
  }

  get wire(): Buffer {
    return Buffer.from(this.key, 'latin1');
  }

  get isRoot(): boolean {
    return this.labelCount === 0;
  }

  /** True where the leftmost label is the asterisk alone (RFC 4592 section 2.1.1). */
  get isWildcard(): boolean {
    return this.key.startsWith('\x01*');
  }

  /** The name of the rightmost `count` labels; itself when it has no more. */
  suffix(count: number): DomainName {
    const drop = this.labelCount - count;
    if (drop <= 0) return this;
    const start = this.#offsets[drop] ?? this.key.length - 1;
    return new DomainName(
      this.key.slice(start),
      this.#offsets.slice(drop).map((offset) => offset - start),
    );
  }

  /** The name one label up; the root's parent is the root. */
  parent(): DomainName {
    return this.suffix(this.labelCount - 1);
  }

  /** `*.` in front, or undefined where that is too long to be a name. */
  wildcardChild(): DomainName | undefined {
    return this.key.length + 2 > NAME_MAX_BYTES ? undefined : DomainName.fromKey(`\x01*${this.key}`);
  }

  /** The octets of a label, counted from the left. */
  label(index: number): string {
    const start = this.#offsets[index];
    return start === undefined ? '' : this.key.slice(start + 1, start + 1 + this.key.charCodeAt(start));
  }

  equals(other: DomainName): boolean {
    return this.key === other.key;
  }

  /** At or below `other`, label by label: `badexample.com` is not below `example.com`. */
  isWithin(other: DomainName): boolean {
    if (other.labelCount > this.labelCount || !this.key.endsWith(other.key)) return false;
    const start = this.#offsets[this.labelCount - other.labelCount] ?? this.key.length - 1;
    return this.key.length - start === other.key.length;
  }

  isBelow(other: DomainName): boolean {
    return this.labelCount > other.labelCount && this.isWithin(other);
  }

  /** The deepest name that encloses both. */
  commonAncestor(other: DomainName): DomainName {
    const most = Math.min(this.labelCount, other.labelCount);
    let count = 0;
    while (
      count < most &&
      this.label(this.labelCount - 1 - count) === other.label(other.labelCount - 1 - count)
    ) {
      count += 1;
    }
    return this.suffix(count);
  }

  /**
   * The name under `target` that stands for this one under `owner` (RFC 6672 section 2.2), or undefined where it
   * would be longer than a name may be.
   */
  rebase(owner: DomainName, target: DomainName): DomainName | undefined {
    const prefix = this.key.slice(0, this.key.length - owner.key.length);
    const key = prefix + target.key;
    return key.length > NAME_MAX_BYTES ? undefined : DomainName.fromKey(key);
  }

  /** Canonical order (RFC 4034 section 6.1): negative, zero or positive. */
  compare(other: DomainName): number {
    const most = Math.min(this.labelCount, other.labelCount);
    for (let up = 1; up <= most; up += 1) {
      const mine = this.label(this.labelCount - up);
      const theirs = other.label(other.labelCount - up);
      if (mine !== theirs) return mine < theirs ? -1 : 1;
    }
    return this.labelCount - other.labelCount;
  }

  /** Presentation form with a last dot; octets that are not plain are escaped. */
  toString(): string {
    if (this.isRoot) return '.';
    let text = '';
    for (let index = 0; index < this.labelCount; index += 1) text += `${escapeLabel(this.label(index))}.`;
    return text;
  }
}

export const ROOT = DomainName.fromKey('\0');

/** ASCII letters only (RFC 4343); other octets stay what they are. */
export function lowerCase(octets: string): string {
  return /[A-Z]/.test(octets) ? octets.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) : octets;
}

function escapeLabel(label: string): string {
  return label.replace(/[^0-9A-Za-z_*-]/g, (octet) => {
    const code = octet.charCodeAt(0);
    if (code < 0x21 || code > 0x7e) return `\\${String(code).padStart(3, '0')}`;
    return /[.\\"();@$]/.test(octet) ? `\\${octet}` : octet;
  });
}

function splitLabels(text: string): string[] {
  const labels: string[] = [];
  let label = '';
  let at = 0;
  while (at < text.length) {
    const char = text.charAt(at);
    if (char === '.') {
      labels.push(label);
      label = '';
      at += 1;
    } else if (char === '\\') {
      const digits = /^\\(\d{3})/.exec(text.slice(at, at + 4))?.[1];
      const code = digits === undefined ? text.charCodeAt(at + 1) : Number(digits);
      if (!(code <= 0xff)) throw badName(text);
      label += String.fromCharCode(code);
      at += digits === undefined ? 2 : 4;
    } else {
      if (char.charCodeAt(0) <= 0x20 || char.charCodeAt(0) > 0x7e) throw badName(text);
      label += char;
      at += 1;
    }
  }
  if (label !== '') labels.push(label);
  return labels;
}

function badName(text: string): PosternError {
  return new PosternError('ERR_DNS_NAME', `${JSON.stringify(text.slice(0, 300))} is not a domain name`);
}
