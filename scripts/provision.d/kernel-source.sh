# SPDX-License-Identifier: GPL-2.0
# Debian's kernel source, and that source prepared with the stock kernel's configuration and symbol
# versions: what a module for the stock kernel is built against. The headers package alone does not do, since it lacks
# the metadata of the kernel's Rust crates; these come out identical because compiler, flags and name agree.

# kernel_source_make DIR SERIES VERSION: the source of Debian's kernel SERIES into DIR/linux.
kernel_source_make() {
	fetch_debs trixie "$1" "linux-source-$2=$3"
	dpkg -x "$1"/linux-source-*.deb "$1/deb"
	mkdir "$1/linux"
	tar -C "$1/linux" --strip-components=1 -xf "$1/deb/usr/src/linux-source-$2.tar.xz"
	rm -r "$1"/deb "$1"/*.deb
}

# kernel_source: prints the pristine tree.
kernel_source() {
	local dir
	versions
	dir=$(cached kernel-source "$(hash_of "$STOCK_VERSION")" kernel_source_make "$STOCK_SERIES" "$STOCK_VERSION") || return 1
	printf '%s/linux\n' "$dir"
}

# The variables every build against the stock kernel gives to make.
stock_make_flags() { printf 'CROSS_COMPILE=x86_64-linux-gnu- KERNELRELEASE=%s' "$STOCK_RELEASE"; }

stock_tree_make() {
	local dir=$1 source=$2 root=$3 headers
	cp -a "$source" "$dir/linux"
	fetch_debs trixie "$dir" "linux-headers-$STOCK_RELEASE=$STOCK_VERSION"
	dpkg -x "$dir"/linux-headers-*.deb "$dir/deb"
	headers=$dir/deb/usr/src/linux-headers-$STOCK_RELEASE
	cp "$headers/.config" "$headers/Module.symvers" "$dir/linux/"
	# shellcheck disable=SC2046
	in_root "$root" --bind "$dir/linux:/kernel" -- \
		nice make -C /kernel $(stock_make_flags) -j"$(nproc)" modules_prepare
	rm -r "$dir/deb" "$dir"/*.deb
}

# stock_tree: prints the tree to build modules for the stock kernel in (at /kernel in the build root).
stock_tree() {
	local dir root source
	versions
	root=$(build_root) || return 1
	source=$(kernel_source) || return 1
	dir=$(cached stock-tree "$(hash_of "$STOCK_VERSION" "$root")" stock_tree_make "$source" "$root") ||
		return 1
	printf '%s/linux\n' "$dir"
}
