#!/bin/sh
# Installs the Debian packages that the tests need, when one is missing. Says nothing when all are there.
set -eu

# VM and kernel: qemu, busybox, kmod, cpio. Network: nftables, iproute2, socat, curl, openssl. NBD and file systems:
# libnbd, qemu-utils, nbd-client, nbdkit, fio, btrfs-progs, e2fsprogs. S3: Ceph’s gateway with a monitor and an OSD.
# DNS: two validating resolvers, one of them the oracle, three authoritative servers, BIND’s signer.
packages="
  qemu-system-x86 busybox-static kmod cpio
  nftables iproute2 socat curl openssl procps python3 python3-dnspython
  libnbd-bin python3-libnbd qemu-utils nbd-client nbdkit fio btrfs-progs e2fsprogs
  radosgw ceph-mon ceph-osd ceph-common
  unbound knot-resolver bind9 bind9-utils knot nsd ldnsutils dnsperf
"
attempts=4

missing=
# dpkg-query fails for a package it never heard of; what it printed about the others still counts.
# shellcheck disable=SC2086
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $packages 2>/dev/null || true)
for package in $packages; do
  case "
$installed
" in
  *"
$package installed
"*) ;;
  *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "The tests need Debian packages that are not installed. As root:" >&2
  echo "  apt-get update && apt-get install -y --no-install-recommends$missing" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# Tells invoke-rc.d to start nothing: the DNS servers would fight for port 53.
export RUNLEVEL=1
attempt=1
# shellcheck disable=SC2086
until apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing >&2; do
  [ "$attempt" -lt "$attempts" ] || { echo "apt-get failed $attempts times for:$missing" >&2; exit 1; }
  sleep $((attempt * 5))
  attempt=$((attempt + 1))
done
