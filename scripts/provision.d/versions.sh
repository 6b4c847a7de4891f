# SPDX-License-Identifier: GPL-2.0
# Which kernels to use. Decided once and kept in the cache, so that a later run needs no network;
# `scripts/provision refresh` decides anew.
#
# KERNEL, when set, asks for another stock kernel than the newest: a release (`uname -r`) or a series (7.2).

VERSIONS=$CACHE/versions

# candidate SET PACKAGE: newest version of a package, empty if there is none.
candidate() { apt_with "$1" apt-cache show "$2" 2>/dev/null | awk '/^Version:/ { print $2; exit }' || true; }

# stock_choice WANTED: the newest WANTED (7 for any 7.x, 7.2, or a whole release) for which headers, modules,
# image and source are there in the same version.
stock_choice() {
	local abi version image series
	while read -r abi; do
		version=$(candidate trixie "linux-headers-$abi")
		series=$(printf '%s' "$abi" | cut -d. -f1,2 | cut -d+ -f1)
		for image in "linux-binary-$abi" "linux-binary-unsigned-$abi"; do
			[ -n "$version" ] && [ "$(candidate trixie "$image")" = "$version" ] || continue
			[ "$(candidate trixie "linux-modules-$abi")" = "$version" ] || continue
			apt_with trixie apt-cache madison "linux-source-$series" | grep -qF " $version " || continue
			printf 'STOCK_RELEASE=%s\nSTOCK_VERSION=%s\nSTOCK_IMAGE=%s\nSTOCK_SERIES=%s\n' \
				"$abi" "$version" "$image" "$series"
			return 0
		done
	done < <(apt_with trixie apt-cache pkgnames linux-headers-7. |
		sed -n 's/^linux-headers-\(7\.[0-9.]*+deb13-amd64\)$/\1/p' | grep -E "^${1//[.+]/\\&}([.+]|\$)" | sort -rV)
	return 1
}

# Newest 6.12: the last series with the C module.
oracle_choice() {
	local abi version
	while read -r abi; do
		version=$(candidate trixie "linux-image-$abi")
		[ -n "$version" ] || continue
		printf 'ORACLE_RELEASE=%s\nORACLE_VERSION=%s\n' "$abi" "$version"
		return 0
	done < <(apt_with trixie apt-cache pkgnames linux-image-6.12. |
		sed -n 's/^linux-image-\(6\.12\.[0-9]*+deb13[.0-9]*-amd64\)$/\1/p' | sort -rV)
	return 1
}

decide_versions() {
	local new=$CACHE/tmp/versions.$$
	say "archive: reading Debian's package lists"
	apt_update >"$CACHE/tmp/apt.log" 2>&1 || { tail -n 20 "$CACHE/tmp/apt.log" >&2; die "apt update failed"; }
	{
		stock_choice 7 || die "no 7.x kernel in $RELEASE-backports whose headers, source and image agree"
		oracle_choice || die "no 6.12 kernel in $RELEASE"
		printf 'TOOLS_VERSION=%s\n' "$(candidate experimental bcachefs-tools)"
	} >"$new"
	mv "$new" "$VERSIONS"
}

decide_kernel() {
	local new=$CACHE/tmp/versions.$$
	stock_choice "$KERNEL" >"$new" || {
		apt_update >"$CACHE/tmp/apt.log" 2>&1 || true
		stock_choice "$KERNEL" >"$new" || die "no kernel $KERNEL in $RELEASE-backports whose headers, source and image agree"
	}
	mv "$new" "$VERSIONS-$KERNEL"
}

# versions: sets STOCK_*, ORACLE_* and TOOLS_VERSION.
versions() {
	if [ ! -s "$VERSIONS" ]; then
		(flock 9; [ -s "$VERSIONS" ] || decide_versions) 9>"$CACHE/locks/versions" || exit 1
	fi
	# shellcheck disable=SC1090
	. "$VERSIONS"
	[ -n "${KERNEL:-}" ] || return 0
	if [ ! -s "$VERSIONS-$KERNEL" ]; then
		(flock 9; [ -s "$VERSIONS-$KERNEL" ] || decide_kernel) 9>"$CACHE/locks/versions" || exit 1
	fi
	# shellcheck disable=SC1090
	. "$VERSIONS-$KERNEL"
}
