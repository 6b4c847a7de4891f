# SPDX-License-Identifier: GPL-2.0
# Our own kernels, from Debian's source: `uml` and `debug`. Built when first asked for; each is both what modules are
# built against and a lane's kernel directory (release, vmlinuz or linux, initramfs.cpio).

kernel_make_flags() {
	case $1 in
	uml) echo "ARCH=um LLVM=1" ;;
	debug) echo "LLVM=1" ;;
	esac
}

kernel_tree_make() {
	local dir=$1 lane=$2 source=$3 root=$4 flags missing
	read -ra flags <<<"$(kernel_make_flags "$lane")"
	cp -a "$source" "$dir/linux"
	grep -h '^CONFIG' "$SCRIPTS/kernel/common.config" "$SCRIPTS/kernel/$lane.config" >"$dir/linux/lane.config"
	in_root "$root" --bind "$dir/linux:/kernel" -- \
		make -C /kernel "${flags[@]}" KCONFIG_ALLCONFIG=lane.config allnoconfig
	# An option whose dependencies are not met is dropped in silence: say which.
	missing=$(grep -vE '=n$' "$dir/linux/lane.config" | grep -vxF -f "$dir/linux/.config" || true)
	[ -z "$missing" ] || echo "not taken: $missing"
	! grep -qE '^CONFIG_(RUST|KUNIT|EXT4_FS|XFS_FS|BTRFS_FS|MODULES)=' <<<"$missing" || exit 1
	in_root "$root" --bind "$dir/linux:/kernel" -- \
		nice make -C /kernel "${flags[@]}" -j"$(nproc)" all
	in_root "$root" --bind "$dir/linux:/kernel" -- \
		make -s -C /kernel "${flags[@]}" kernelrelease >"$dir/release"
	case $lane in
	uml) cp "$dir/linux/linux" "$dir/uml" ;;
	*) cp "$dir/linux/arch/x86/boot/bzImage" "$dir/vmlinuz" ;;
	esac
	make_initramfs "$dir" "$(cat "$dir/release")"
}

# kernel_dir LANE: prints the lane's kernel directory; the tree to build modules in is its linux/.
kernel_dir() {
	local root source
	versions
	root=$(build_root) || return 1
	source=$(kernel_source) || return 1
	cached "$1-kernel" "$(hash_of "$STOCK_VERSION" "$root" "$SCRIPTS/kernel/common.config" "$SCRIPTS/kernel/$1.config")" \
		kernel_tree_make "$1" "$source" "$root"
}
uml_kernel() { kernel_dir uml; }
debug_kernel() { kernel_dir debug; }
