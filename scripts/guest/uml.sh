# SPDX-License-Identifier: GPL-2.0
# Running a guest as user-mode Linux: a program on the host. Part of scripts/vm, whose variables it uses.
# What the guest says goes through files of the run's directory, which it mounts as hostfs.

run_uml() {
	local i status=0 uml
	install -m 755 "$SCRIPTS/guest/init" "$run/init"
	printf 'hostfs=%q\n' "$run" >>"$run/vm/settings"
	(cd "$run" && find init vm | cpio -o -H newc --quiet --owner 0:0) >"$run/extra.cpio"
	cat "$kernel/initramfs.cpio" "$run/extra.cpio" >"$run/initramfs"
	uml=(
		"$kernel/uml" "mem=$mem" "initrd=$run/initramfs" "ubd0r=$guest/root.img"
		con=null con0=null,fd:2 console=tty0 ssl=null loglevel=5 panic=-1 oops=panic
	)
	[ "$cpus" = 1 ] || uml+=("ncpus=$cpus" seccomp=on)
	for i in "${!disks[@]}"; do uml+=("ubd$((i + 1))=${disks[i]}"); done
	# shellcheck disable=SC2206
	uml+=($append)
	: >"$run/out"
	: >"$run/err"
	# Its memory is an unlinked file, where there is room for it. A libc that registers with the host's kernel for restartable sequences
	# has older versions' guest processes killed: what was registered is not mapped in them.
	TMPDIR=$(uml_memory_dir) GLIBC_TUNABLES=glibc.pthread.rseq=0 timeout -k 5 "$timeout" "${uml[@]}" </dev/null >"$run/console" 2>&1 || status=$?
	cat "$run/out"
	cat "$run/err" >&2
	return $status
}

# A directory on a memory filesystem with twice the guest's memory free, else the run's own.
uml_memory_dir() {
	local free want
	free=$(df --output=avail -B1 /dev/shm 2>/dev/null | tail -n 1)
	want=$(numfmt --from=iec "$mem")
	if [ "${free:-0}" -gt $((want * 2)) ]; then echo /dev/shm; else echo "$run"; fi
}
