/** Two octets of length, then the message (RFC 1035 section 4.2.2). */
export function frame(message: Buffer): Buffer {
  const framed = Buffer.alloc(2 + message.length);
  framed.writeUInt16BE(message.length);
  message.copy(framed, 2);
  return framed;
}

/** Takes a byte stream apart into messages; holds at most one unfinished message (65,537 octets) and a chunk. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #heldBytes = 0;

  push(chunk: Buffer): Buffer[] {
    this.#chunks.push(chunk);
    this.#heldBytes += chunk.length;
    const messages: Buffer[] = [];
    // Joined only when a message is complete: a peer that sends octet by octet costs no copies of what is held.
    for (
      let length = this.#nextLength();
      length !== undefined && this.#heldBytes >= length + 2;
      length = this.#nextLength()
    ) {
      const held = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
      if (held === undefined) break;
      messages.push(held.subarray(2, 2 + length));
      const rest = held.subarray(2 + length);
      this.#chunks = rest.length === 0 ? [] : [rest];
      this.#heldBytes = rest.length;
    }
    return messages;
  }

  #nextLength(): number | undefined {
    if (this.#heldBytes < 2) return undefined;
    const [first, second] = this.#chunks;
    if (first === undefined) return undefined;
    if (first.length >= 2) return first.readUInt16BE(0);
    if (second !== undefined && first.length === 1 && second.length > 0) {
      return (first.readUInt8(0) << 8) | second.readUInt8(0);
    }
    this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]?.readUInt16BE(0);
  }
}
