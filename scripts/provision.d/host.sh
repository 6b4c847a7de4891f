# SPDX-License-Identifier: GPL-2.0
# What the host itself must have. Only Debian packages, and only those not there yet.

HOST_PACKAGES="mmdebstrap qemu-system-x86 attr zstd xz-utils e2fsprogs cpio util-linux kmod make
	debian-archive-keyring ca-certificates"

provision_host() {
	local missing=() package
	for package in $HOST_PACKAGES; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "host: installing ${missing[*]}"
	(
		flock 9
		apt-get -q update
		DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
			-o DPkg::Lock::Timeout=300 install "${missing[@]}"
	) 9>"$CACHE/locks/host" >"$CACHE/tmp/host.log" 2>&1 ||
		{ tail -n 20 "$CACHE/tmp/host.log" >&2; die "host: installing packages failed"; }
}
