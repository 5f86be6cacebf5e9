import ipaddr from 'ipaddr.js';
import type { Endpoint } from '../../shared/wire/endpoint.ts';

/** See proxy-v2.md. The twelve bytes that no other protocol begins with. */
const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const VERSION_2_PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;

/**
 * The PROXY protocol header, version 2, for a TCP connection. One family holds both addresses: where they differ,
 * the IPv4 one is written as IPv4-mapped.
 */
export function encodeProxyV2(client: Endpoint, local: Endpoint): Buffer {
  const addresses = [client.address, local.address].map((text) => ipaddr.process(text));
  const both4 = addresses.every((address) => address.kind() === 'ipv4');
  const bytes = addresses.flatMap((address) => {
    if (both4 || address.kind() === 'ipv6') return address.toByteArray();
    return (address as ipaddr.IPv4).toIPv4MappedAddress().toByteArray();
  });
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(client.port, 0);
  ports.writeUInt16BE(local.port, 2);
  const fixed = Buffer.from([VERSION_2_PROXY, both4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6, 0, bytes.length + 4]);
  return Buffer.concat([SIGNATURE, fixed, Buffer.from(bytes), ports]);
}
