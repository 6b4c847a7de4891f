# SPDX-License-Identifier: GPL-2.0
# What the tests of the read-write engine share; sourced on the host, after lib.sh.
. "$TOP/scripts/lib.sh"
set +e

guest=$("$TOP/scripts/provision" guest-root) || exit 1
mkfs=$("$TOP/scripts/build-mkfs") || exit 1
share=$work/share
cp "$mkfs" "$TOP/scripts/guest/manifest" "$TOP/scripts/guest/random-tree" "$TOP"/scripts/selftests/guest/engine* "$share/"

# native COMMAND...: in the guest's userspace, at native speed; $share is /share there.
native() { in_root "$guest/root" --bind "$share:/share" -- "$@"; }

# What a check without findings does not say, but for the lines in which it says how it was started.
STARTED='^(modprobe:|starting version )'
FINDINGS='error|incorrect|mismatch|inconsisten|should be|fixing|missing|corrupt|wrong|invalid|unable|fatal'

# fsck_clean FILE...: Debian's tool finds nothing wrong. What it says is shown otherwise. Its heap gets corrupted now and then: it is
# asked again when it dies.
fsck_clean() {
	local status try
	for try in 1 2 3 4 5; do
		native timeout 120 bcachefs fsck -n "${@/#"$share"//share}" > "$work/fsck" 2>&1
		status=$?
		[ $status -ge 124 ] || break
	done
	if grep -vE "$STARTED" "$work/fsck" | grep -qiE "$FINDINGS"; then status=1; fi
	[ $status = 0 ] || cat "$work/fsck" >&2
	return $status
}

# format_theirs OPTION... FILE...: by Debian's tool, whose heap gets corrupted now and then.
format_theirs() {
	local try
	for try in 1 2 3 4 5; do
		native timeout 60 bcachefs format -q -f "${@/#"$share"//share}" > "$work/format" 2>&1 && return 0
	done
	cat "$work/format" >&2
	return 1
}

# tests_module: the module of the lane with its tests compiled in, for `vm --module`.
tests_module() {
	case $LANE in
	stock) "$TOP/scripts/build" stock TESTS=1 2> "$work/build.log" || { cat "$work/build.log" >&2; return 1; } ;;
	*) "$TOP/scripts/build" "$LANE" 2> "$work/build.log" || { cat "$work/build.log" >&2; return 1; } ;;
	esac
}

# vm_tests OPTION... -- COMMAND...: a guest of the lane under test with the module that tests_module has built, $module.
vm_tests() { vm --module "$module" --share "$share" --console "$work/console" "$@"; }

# tell STATUS: what a guest that ended with STATUS has to say, if something went wrong: $work/out, err and console are its.
tell() {
	if [ "$1" != 0 ] || grep -q '^not ok' "$work/out"; then
		cat "$work/err" >&2
		[ ! -e "$work/console" ] || grep -a -E 'test|bcachefs' "$work/console" | tail -n 20 >&2
	fi
}

# unsupported CONSOLE: whether the module has said that it cannot write at all, which is the only reason to skip.
unsupported() { grep -aq 'only read-only mounts are supported yet' "$1"; }
