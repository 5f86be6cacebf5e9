#!/bin/busybox sh
# First process of the test VM. The host's root is the lower layer of an overlay in memory: the command sees this
# machine's files and may write anywhere, and nothing of it lasts. /run.sh says what to run; see run.ts.
/bin/busybox mkdir -p /proc /sys /dev /lower /layer /root
/bin/busybox --install -s /bin
export PATH=/bin
# The kernel asks for modules here, outside the overlay; they are in it.
mkdir -p /sbin
printf '#!/bin/sh\nexec /bin/chroot /root /sbin/modprobe "$@"\n' >/sbin/modprobe
chmod 755 /sbin/modprobe
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stty -F /dev/ttyS0 raw
for module in /modules/*; do insmod "$module" || echo "insmod $module failed"; done
mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro root /lower
mount -t tmpfs -o size=75% layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /root
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
for folder in /dev/shm /run /tmp /var/tmp; do mount -t tmpfs -o mode=1777 tmp "/root$folder"; done
. /run.sh
poweroff -f
