# SPDX-License-Identifier: GPL-2.0
# The build root: a small trixie with the very compilers Debian built its kernel with, used by chroot.

BUILD_PACKAGES="rustc,rust-src,rust-clippy,rustfmt,cargo,bindgen,clang,lld,llvm,libclang-dev,make,gcc,libc6-dev,\
xz-utils,bc,flex,bison,libelf-dev,libssl-dev,python3,kmod,cpio,rsync,pahole,zlib1g-dev,busybox-static"

build_root_make() {
	deb_lines $RELEASE $RELEASE-updates $RELEASE-security |
		mmdebstrap --mode=root --variant=minbase --include="$BUILD_PACKAGES" \
			--aptopt='Acquire::Languages "none"' \
			--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
			$RELEASE "$1/root" -
	mkdir -p "$1/root/kernel" "$1/root/src" "$1/root/out"
	rm -rf "$1"/root/var/cache/apt/*.bin "$1"/root/var/lib/apt/lists/*
}

# build_root: prints the directory to chroot to.
build_root() {
	local dir
	provision_host
	dir=$(cached build-root "$(hash_of $RELEASE "$BUILD_PACKAGES")" build_root_make) || return 1
	printf '%s/root\n' "$dir"
}
