# SPDX-License-Identifier: GPL-2.0
# Our own kernels, from Debian's source: `uml` and `debug`; and for measuring `bench`, user-mode Linux without checks, and `bench-c`, the same of the
# last series that has the C module, which is built in. Built when first asked for; each is both what modules are
# built against and a lane's kernel directory (release, vmlinuz or linux, initramfs.cpio).

kernel_make_flags() {
	case $1 in
	uml | bench*) echo "ARCH=um LLVM=1" ;;
	debug) echo "LLVM=1" ;;
	esac
}

# kernel_configs LANE: the files its configuration comes from, of which later ones win.
kernel_configs() {
	local name
	case $1 in
	bench*) set -- common uml "$1" ;;
	*) set -- common "$1" ;;
	esac
	for name; do printf '%s\n' "$SCRIPTS/kernel/$name.config"; done
}

kernel_tree_make() {
	local dir=$1 lane=$2 source=$3 root=$4 flags missing
	read -ra flags <<<"$(kernel_make_flags "$lane")"
	cp -a "$source" "$dir/linux"
	# shellcheck disable=SC2046
	cat $(kernel_configs "$lane") | awk -F= '/^CONFIG/ { if (!($1 in line)) order[++n] = $1; line[$1] = $0 }
		END { for (i = 1; i <= n; i++) print line[order[i]] }' >"$dir/linux/lane.config"
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
	uml | bench*) cp "$dir/linux/linux" "$dir/uml" ;;
	*) cp "$dir/linux/arch/x86/boot/bzImage" "$dir/vmlinuz" ;;
	esac
	make_initramfs "$dir" "$(cat "$dir/release")"
}

# kernel_dir LANE: prints the lane's kernel directory; the tree to build modules in is its linux/.
kernel_dir() {
	local root source version
	versions
	root=$(build_root) || return 1
	case $1 in
	bench-c) source=$(oracle_source) version=$ORACLE_VERSION ;;
	*) source=$(kernel_source) version=$STOCK_VERSION ;;
	esac || return 1
	# shellcheck disable=SC2046
	cached "$1-kernel" "$(hash_of "$version" "$root" $(kernel_configs "$1"))" kernel_tree_make "$1" "$source" "$root"
}
uml_kernel() { kernel_dir uml; }
debug_kernel() { kernel_dir debug; }
bench_kernel() { kernel_dir bench; }
bench_c_kernel() { kernel_dir bench-c; }
