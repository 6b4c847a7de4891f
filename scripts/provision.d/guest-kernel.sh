# SPDX-License-Identifier: GPL-2.0
# Debian's own kernels, as the lanes boot them: image, an initramfs that finds the guest root, and a disk
# image with the modules a filesystem test may ask for. All decompressed: emulated xz costs seconds.
#
# A lane's kernel directory holds: release  vmlinuz  initramfs.cpio  modules.img (not when all is built in)

# What the initramfs inserts, in this order, with whatever they depend on.
BOOT_MODULES="virtio_pci virtio_blk ext4 overlay virtio_console 9pnet_virtio 9p"

# Parts of the module tree that go into the guest.
GUEST_MODULES="kernel/arch/x86 kernel/block kernel/crypto kernel/lib kernel/mm kernel/fs kernel/net/9p
	kernel/drivers/block kernel/drivers/md kernel/drivers/virtio kernel/drivers/char
	kernel/drivers/scsi kernel/drivers/dax kernel/drivers/nvdimm kernel/drivers/crypto"

# pack_modules DIR TREE RELEASE: DIR/modules.img and DIR/modules (list of boot modules' files) from a module tree.
pack_modules() {
	local dir=$1 tree=$2 release=$3 part target=$1/root/usr/lib/modules/$3
	mkdir -p "$target/kernel"
	for part in $GUEST_MODULES; do
		[ -d "$tree/$part" ] || continue
		mkdir -p "$target/$(dirname "$part")"
		cp -a "$tree/$part" "$target/$(dirname "$part")/"
	done
	find "$tree" -maxdepth 1 -name 'modules.*' -exec cp {} "$target/" \;
	find "$target" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 -P "$(nproc)" xz -d
	[ ! -e "$target/modules.order" ] || sed -i 's/\.ko\.xz$/.ko/' "$target/modules.order"
	ln -s usr/lib "$dir/root/lib"
	depmod -b "$dir/root" "$release"
	mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$target" "$dir/modules.img" \
		"$(($(du -sm "$target" | cut -f1) * 5 / 4 + 16))M"
}

# make_initramfs DIR RELEASE: DIR/initramfs.cpio, less /init, which each run brings; boot modules are taken from DIR/root if that is there.
make_initramfs() {
	local dir=$1 release=$2 ram=$1/ram root list
	root=$(build_root)
	mkdir -p "$ram"/{bin,dev,proc,sys,run,modules,vm,new}
	cp "$root/bin/busybox" "$ram/bin/busybox"
	: >"$ram/modules/order"
	if [ -d "$dir/root" ]; then
		# shellcheck disable=SC2086
		for list in $BOOT_MODULES; do
			modprobe -d "$dir/root" -S "$release" --show-depends "$list" | awk '$1 == "insmod" { print $2 }'
		done | awk '!seen[$0]++' | while read -r list; do
			cp "$list" "$ram/modules/"
			basename "$list" >>"$ram/modules/order"
		done
	fi
	(cd "$ram" && find . | cpio -o -H newc --quiet --owner 0:0 >"$dir/initramfs.cpio")
	rm -r "$ram"
}

# debian_kernel_make DIR RELEASE PACKAGE=VERSION...: a lane's kernel directory from Debian's packages.
debian_kernel_make() {
	local dir=$1 release=$2 deb
	shift 2
	fetch_debs trixie "$dir" "$@"
	for deb in "$dir"/*.deb; do dpkg -x "$deb" "$dir/deb"; done
	cp "$(find "$dir/deb" -type f \( -name "vmlinuz-$release" -o -name vmlinuz -o -name vmlinuz.unsigned \) | head -n 1)" \
		"$dir/vmlinuz"
	pack_modules "$dir" "$(find "$dir/deb" -type d -path "*/lib/modules/$release")" "$release"
	make_initramfs "$dir" "$release"
	printf '%s\n' "$release" >"$dir/release"
	rm -r "$dir"/deb "$dir"/*.deb
}

# The directory of a lane's kernel depends on this besides the kernel's version.
guest_kernel_key() { hash_of "$1" "$SCRIPTS/provision.d/guest-kernel.sh"; }

stock_kernel() {
	versions
	build_root >/dev/null
	cached stock-kernel "$(guest_kernel_key "$STOCK_VERSION")" debian_kernel_make "$STOCK_RELEASE" \
	"$STOCK_IMAGE=$STOCK_VERSION" "linux-modules-$STOCK_RELEASE=$STOCK_VERSION" "linux-base-$STOCK_RELEASE=$STOCK_VERSION"
}
oracle_kernel() {
	versions
	build_root >/dev/null
	cached oracle-kernel "$(guest_kernel_key "$ORACLE_VERSION")" debian_kernel_make "$ORACLE_RELEASE" \
	"linux-image-$ORACLE_RELEASE=$ORACLE_VERSION"
}
