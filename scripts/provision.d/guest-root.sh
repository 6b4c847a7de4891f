# SPDX-License-Identifier: GPL-2.0
# The guest's userspace: a small trixie with the tools tests use and Debian's bcachefs-tools. As a directory
# (user-mode Linux) and as a disk image (QEMU), both used read-only.

GUEST_PACKAGES="fio,attr,acl,stress-ng,dmsetup,xfsprogs,btrfs-progs,e2fsprogs,kmod,procps,psmisc,strace,rsync,\
file,zstd,xz-utils,python3,openssl,keyutils"

guest_root_make() {
	local dir=$1 deb depends
	fetch_debs experimental "$dir" "bcachefs-tools=$TOOLS_VERSION"
	deb=$(echo "$dir"/bcachefs-tools_*.deb)
	depends=$(dpkg-deb -f "$deb" Depends | sed 's/([^)]*)//g; s/|[^,]*//g; s/[[:space:]]//g')
	deb_lines $RELEASE $RELEASE-updates $RELEASE-security |
		mmdebstrap --mode=root --variant=minbase --include="$GUEST_PACKAGES,$depends" \
			--aptopt='Acquire::Languages "none"' \
			--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
			--dpkgopt='path-exclude=/usr/share/doc/*' \
			--customize-hook="cp '$deb' \"\$1/tmp/tools.deb\" && chroot \"\$1\" dpkg -i /tmp/tools.deb && rm \"\$1/tmp/tools.deb\"" \
			$RELEASE "$dir/root" -
	rm -rf "$dir"/root/var/cache/apt/* "$dir"/root/var/lib/apt/lists/* "$deb"
	rm -f "$dir"/root/dev/console
	mkdir -p "$dir/root/vm" "$dir/root/share" "$dir/root/lib/modules" "$dir/root/mnt"
	mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$dir/root" "$dir/root.img" \
		"$(($(du -sm "$dir/root" | cut -f1) * 5 / 4 + 64))M"
}

# guest_root: prints a directory holding root/ and root.img.
guest_root() {
	versions
	provision_host
	cached guest-root "$(hash_of "$TOOLS_VERSION" "$GUEST_PACKAGES" $RELEASE)" guest_root_make
}
