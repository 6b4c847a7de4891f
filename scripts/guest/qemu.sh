# SPDX-License-Identifier: GPL-2.0
# Running a guest in QEMU. Part of scripts/vm, whose variables it uses.

# drive NAME FILE OPTIONS: arguments for a virtio disk the guest knows by NAME. `unsafe` leaves out flushes: what the
# guest wrote is in the host's page cache, and so in FILE for every reader, when QEMU has gone.
drive() {
	qemu+=(-drive "if=none,id=$1,file=${2//,/,,},format=raw,cache=unsafe,aio=threads,discard=unmap$3")
	qemu+=(-device "virtio-blk-pci,drive=$1,serial=$1")
}

run_qemu() {
	local i port status=0 accel=tcg,thread=multi
	# Debian's kernel lets tests write to a mounted device, too.
	# At boot the kernel counts ticks of the emulated timer and panics if there are too few, as on a busy host: `no_timer_check`.
	[ "$lane" != debug ] || append="bdev_allow_write_mounted=1 $append"
	install -m 755 "$SCRIPTS/guest/init" "$run/init"
	(cd "$run" && find init vm | cpio -o -H newc --quiet --owner 0:0) >"$run/extra.cpio"
	cat "$kernel/initramfs.cpio" "$run/extra.cpio" >"$run/initramfs"
	qemu=(
		qemu-system-x86_64 -accel "$accel" -cpu max -smp "$cpus" -m "$mem" -nodefaults -display none -no-reboot
		-kernel "$kernel/vmlinuz" -initrd "$run/initramfs"
		-append "console=ttyS0 no_timer_check loglevel=5 panic=-1 oops=panic rcupdate.rcu_cpu_stall_timeout=60 $append"
		-chardev "file,id=console,path=$run/console" -serial chardev:console
		-device virtio-serial-pci
	)
	# What the guest says passes through pipes, so that it is seen at once.
	for port in out err status; do
		[ $port = status ] || mkfifo "$run/$port"
		qemu+=(-chardev "file,id=$port,path=$run/$port" -device "virtserialport,chardev=$port,name=vm.$port")
	done
	cat <"$run/out" &
	local out=$!
	cat <"$run/err" >&2 &
	local err=$!
	drive root "$guest/root.img" ",readonly=on,file.locking=off"
	[ ! -e "$kernel/modules.img" ] || drive modules "$kernel/modules.img" ",readonly=on,file.locking=off"
	for i in "${!disks[@]}"; do drive "DISK$i" "${disks[i]}" ""; done
	[ -z "$share" ] || qemu+=(-virtfs "local,path=${share//,/,,},mount_tag=share,security_model=passthrough,multidevs=remap")
	timeout --foreground -k 5 "$timeout" "${qemu[@]}" </dev/null >"$run/qemu.log" 2>&1 || status=$?
	if [ ! -p "$run/out" ] || [ $status = 1 ]; then
		cat "$run/qemu.log" >&2
		kill $out $err 2>/dev/null || true
	fi
	wait $out $err 2>/dev/null || true
	return $status
}
