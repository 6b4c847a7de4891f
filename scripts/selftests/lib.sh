# SPDX-License-Identifier: GPL-2.0
# What the whole-system tests share; sourced on the host. A test prints `ok NAME`, `not ok NAME` or
# `skip NAME REASON`, one line each; everything else it says goes to stderr.
set -uo pipefail
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LANE=${SELFTEST_LANE:-stock}
work=$(mktemp -d "${TMPDIR:-/tmp}/selftest.XXXXXX")
trap '[ -n "${SELFTEST_KEEP:-}" ] || rm -rf "$work"' EXIT
mkdir "$work/share"

say() { printf '%s\n' "$*" >&2; }

# verdict NAME STATUS: one result line.
verdict() { if [ "$2" = 0 ]; then echo "ok $1"; else echo "not ok $1"; fi; }

# limit SECONDS: how long a guest may take in the lane under test; the debug kernel takes its time.
limit() { if [ "$LANE" = debug ]; then echo $(($1 * 8)); else echo "$1"; fi; }

# The module is the one that users get, also where the kernel has KUnit.
plain=
if [ "$LANE" = debug ]; then plain=$("$TOP/scripts/build" debug TESTS=0 2> "$work/build.log") || { cat "$work/build.log" >&2; exit 1; }; fi

# vm OPTION… -- COMMAND…: a guest of the lane under test.
vm() { "$TOP/scripts/vm" --lane "$LANE" ${plain:+--module "$plain"} ${SELFTEST_APPEND:+--append "$SELFTEST_APPEND"} "$@"; }

# relay PREFIX FILE: passes the result lines a guest wrote on, names prefixed. A guest that died before its
# last line (`done`) has failed whatever it did not get to.
relay() {
	sed -n "s/^\(ok\|not ok\|skip\) /\1 $1/p" "$2"
	if ! grep -qx 'done' "$2"; then echo "not ok ${1}completes"; fi
}

# unpack_fixture NAME: $work/NAME.diskN.img from the committed images; prints their number.
unpack_fixture() {
	local image n=0
	for image in "$TOP/tests/fixtures/$1"/disk*.img.zst; do
		zstd -q -d --long=27 --sparse -f "$image" -o "$work/$1.disk$n.img" || return 1
		n=$((n + 1))
	done
	echo "$n"
}
