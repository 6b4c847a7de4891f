# SPDX-License-Identifier: GPL-2.0
# The C module with its own tests compiled in, for comparisons: Debian leaves them out. Built when first asked for, for the oracle lane's kernel,
# from Debian's source and headers of it.

oracle_series() { printf '%s\n' "$ORACLE_RELEASE" | cut -d. -f1,2; }

# oracle_source: prints the pristine tree of the last kernel that has the C module.
oracle_source() {
	local dir
	versions
	dir=$(cached oracle-source "$(hash_of "$ORACLE_VERSION")" kernel_source_make "$(oracle_series)" "$ORACLE_VERSION") || return 1
	printf '%s/linux\n' "$dir"
}

c_module_make() {
	local dir=$1 source=$2 root=$3 abi=${ORACLE_RELEASE%-amd64} deb tree
	fetch_debs trixie "$dir" "linux-headers-$ORACLE_RELEASE=$ORACLE_VERSION" "linux-headers-$abi-common=$ORACLE_VERSION" \
		"linux-kbuild-$abi=$ORACLE_VERSION"
	for deb in "$dir"/*.deb; do dpkg -x "$deb" "$dir/deb"; done
	# Where its trace events are looked for.
	tree=/usr/src/linux-headers-$abi-common/fs/bcachefs
	mkdir -p "$(dirname "$dir/deb$tree")"
	cp -a "$source/fs/bcachefs" "$dir/deb$tree"
	# What the option would define; the rest of the configuration is the kernel's own.
	in_root "$root" --bind "$dir/deb/usr/src:/usr/src" --bind "$dir/deb/usr/lib/linux-kbuild-$abi:/usr/lib/linux-kbuild-$abi" -- \
		nice make -C "/usr/src/linux-headers-$ORACLE_RELEASE" M="$tree" -j"$(nproc)" CONFIG_BCACHEFS_TESTS=y \
		KCFLAGS=-DCONFIG_BCACHEFS_TESTS=1 modules
	cp "$dir/deb$tree/bcachefs.ko" "$dir/bcachefs.ko"
	rm -r "$dir/deb" "$dir"/*.deb
}

# c_module: prints the C module for the oracle lane's kernel, with perf_test.
c_module() {
	local dir root source
	versions
	root=$(build_root) || return 1
	source=$(oracle_source) || return 1
	dir=$(cached c-module "$(hash_of "$ORACLE_VERSION" "$root")" c_module_make "$source" "$root") || return 1
	printf '%s/bcachefs.ko\n' "$dir"
}
