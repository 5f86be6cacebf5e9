/** One way to one resolver: asks a whole DNS message and gives the whole answer. */
export interface Upstream {
  /** For logs and messages: `192.0.2.1:53 over UDP`. */
  readonly name: string;
  /**
   * The answer's octets, with the id and question of `query` (other datagrams are ignored, not errors).
   * @throws PosternError ERR_DNS_UPSTREAM, or ERR_DNS_TIMEOUT when the signal aborts first
   */
  exchange(query: Buffer, options: { readonly signal: AbortSignal }): Promise<Buffer>;
}

/** A resolver that the owner chose: the ways to it, from the quick one to the reliable one. */
export interface UpstreamResolver {
  readonly name: string;
  readonly ways: readonly Upstream[];
}
