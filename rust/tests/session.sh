# SPDX-License-Identifier: GPL-2.0
# Run in the guest by rust/tests/run.

status=0
fail() { echo "FAILED: $*"; status=1; }
refused() { "$@" >/tmp/out 2>&1 && fail "not refused: $*"; }
slab() { awk '$1 == "kfs_example_inode" { print $2 }' /proc/slabinfo; }
mkdir -p /tmp/a /tmp/b
device=$DISK0

# Options
refused mount -t kfs_example -o ro,unheard=1 $device /tmp/a
grep -q "nknown parameter" /tmp/out || fail "no word of the unknown option: $(cat /tmp/out)"
refused mount -t kfs_example -o ro,delay=x $device /tmp/a
grep -q 'option "delay" takes a number' /tmp/out || fail "no word of the malformed option: $(cat /tmp/out)"
refused mount -t kfs_example -o ro,fail $device /tmp/a
refused mount -t kfs_example -o ro,mood=ugly $device /tmp/a
grep -q 'takes one of good, bad' /tmp/out || fail "no word of the choices: $(cat /tmp/out)"
refused mount -t kfs_example -o ro /dev/nothing /tmp/a
refused mount -t kfs_example -o ro none /tmp/a

# Mounting twice shares the filesystem
mount -t kfs_example -o mood=good,delay=5 $device /tmp/a || fail "mount"
mount -t kfs_example -o ro $device /tmp/b || fail "second mount"
[ "$(stat -c %d /tmp/a)" = "$(stat -c %d /tmp/b)" ] || fail "not the same filesystem"
grep -q "$device /tmp/a kfs_example ro,relatime,delay=5 0 0" /proc/mounts || fail "$(grep kfs_example /proc/mounts)"
refused mount -o remount,rw /tmp/a
refused mount -o remount,ro,delay=5000 /tmp/a
grep -q 'too long' /tmp/out || fail "no word of the delay: $(cat /tmp/out)"
mount -o remount,ro,delay=7 /tmp/a || fail "remount"

# What is in it
/share/probe /tmp/a $device || fail "probe"
find /tmp/b | wc -l | grep -qx 5012 || fail "find: $(find /tmp/b | wc -l)"

# From many sides at once
lines=$(ls -lR /tmp/a | wc -l)
for i in 1 2 3 4; do
	(
		for j in 1 2 3 4 5; do
			echo $((j % 3 + 1)) >/proc/sys/vm/drop_caches
			cmp /tmp/a/device $device && dd if=/tmp/b/device bs=256k iflag=direct 2>/dev/null | cmp - $device &&
				[ "$(ls -lR /tmp/b | wc -l)" = "$lines" ] || echo "worker $i" >>/tmp/broken
		done
	) &
done
wait
[ ! -e /tmp/broken ] || fail "$(cat /tmp/broken)"

# Unmounting
umount /tmp/b || fail "umount"
cmp /tmp/a/device $device || fail "after the first umount"
refused rmmod kfs_example
exec 9</tmp/a/dir/small
refused umount /tmp/a
exec 9<&-
i=0
while [ $i -lt 20 ]; do
	umount /tmp/a && mount -t kfs_example -o ro $device /tmp/a || fail "mounting again, $i"
	ls -l /tmp/a >/dev/null
	i=$((i + 1))
done
umount /tmp/a || fail "umount"
rmmod kfs_example || fail "rmmod"
[ -z "$(slab)" ] || fail "the slab cache is still there"
insmod /vm/bcachefs.ko && mount -t kfs_example -o ro $device /tmp/a && umount /tmp/a && rmmod kfs_example || fail "once more"
[ $status = 0 ] && echo "all is well"
exit $status
