# SPDX-License-Identifier: GPL-2.0
# Guest side of the tests of the read-write engine: sourced.
mnt=/tmp/mnt
mkdir -p $mnt
verdict() { if [ "$2" = 0 ]; then echo "ok $1"; else echo "not ok $1"; fi; }


# is_rw DIR: whether what is mounted there is written to. What the VFS says does not do for a module that keeps its keys read-write, and lets
# nobody change files yet.
is_rw() { grep -q " $1 bcachefs rw" /proc/mounts || grep -qw rw /sys/fs/bcachefs/*/internal/flags 2> /dev/null; }

# mount_rw SOURCE [OPTIONS]: read-write, and not what mount(8) makes of a refusal.
mount_rw() {
	mount -t bcachefs -o "rw${2:+,$2}" "$1" $mnt 2> /tmp/mount.err || { cat /tmp/mount.err >&2; return 1; }
	if is_rw $mnt; then return 0; fi
	echo "mounted read-only, and not read-write" >&2
	umount $mnt
	return 1
}

# run_test COMMAND...: has the module run one of its tests.
run_test() {
	for file in /sys/fs/bcachefs/*/perf_test; do
		echo "$*" > "$file" && return 0
	done
	dmesg | grep -E 'test|bcachefs' | tail -5 >&2
	return 1
}

# says PATTERN: whether the kernel's log has it.
says() { dmesg | grep -qE "$1"; }

# complaints: what our module has called an error since the last call.
complaints() {
	dmesg -c | grep -v 'module verification failed' > /tmp/dmesg
	grep -E 'bcachefs.*(error|inconsisten|corrupt|failed|fatal|emergency)' /tmp/dmesg >&2 && return 1
	return 0
}
