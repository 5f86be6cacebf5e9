/**
 * The trust anchors of the root zone that Postern ships with: KSK-2017 (20326) and KSK-2024 (38696), the DS records that
 * IANA publishes at https://data.iana.org/root-anchors/root-anchors.xml (compared with Debian's package dns-root-data).
 * RFC 5011 is not run: what the guest trusts is measured, and a rollover is a change of configuration.
 */
export const ROOT_ANCHORS = `
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
`;
