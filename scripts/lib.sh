# SPDX-License-Identifier: GPL-2.0
# Shared by the scripts of this directory: where things are kept, how progress is told, how an
# expensive thing is built once. Sourced, not run.

set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$SCRIPTS/.." && pwd)
CACHE=${BCACHEFS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}}/bcachefs-rust
LOG_START=${LOG_START:-$(date +%s)}
export LOG_START
mkdir -p "$CACHE/locks" "$CACHE/tmp"

# Progress goes to stderr: stdout belongs to results (paths, a guest's output).
say() { printf '[%4ds] %s\n' $(($(date +%s) - LOG_START)) "$*" >&2; }
die() { say "error: $*"; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "this needs root (chroot and mount namespaces)"; }

# hash_of FILE-OR-WORD...: a short name for everything something depends on.
hash_of() {
	local arg
	for arg in "$@"; do
		if [ -f "$arg" ]; then cat "$arg"; else printf '%s\n' "$arg"; fi
	done | sha256sum | cut -c1-12
}

# cached NAME KEY BUILD [ARG...]: prints the path $CACHE/NAME-KEY. If it is not there, runs
# `BUILD DIR ARG...` on an empty directory, under a lock, and renames that into place when it succeeded, so
# whatever has the final name is complete. The log of the last run is kept beside the cache.
cached() {
	local name=$1 key=$2 build=$3 dir tmp log status
	shift 3
	dir=$CACHE/$name-$key
	if [ ! -e "$dir" ]; then
		(
			flock -n 9 || { say "$name: waiting for another run that builds it"; flock 9; }
			[ ! -e "$dir" ] || exit 0
			tmp=$CACHE/tmp/$name-$key
			log=$CACHE/tmp/$name.log
			rm -rf --one-file-system "$tmp"
			mkdir -p "$tmp"
			say "$name: building (log: $log)"
			# A process of its own: `set -e` is without effect in whatever a condition calls.
			status=0
			"$SCRIPTS/provision" call "$build" "$tmp" "$@" >"$log" 2>&1 || status=$?
			if [ $status != 0 ]; then
				tail -n 30 "$log" >&2
				die "$name: failed, see $log"
			fi
			mv "$tmp" "$dir"
			say "$name: ready"
		) 9>"$CACHE/locks/$name-$key" || return 1
	fi
	touch -c "$dir" 2>/dev/null || true
	printf '%s\n' "$dir"
}

# in_root ROOT [--bind SRC:DST]... -- COMMAND...: runs a command in a chroot. Mounts are made in a
# private mount namespace, so they end with the command, whatever happens to it.
in_root() {
	local root=$1 binds=()
	shift
	while [ "$1" != -- ]; do
		case $1 in
		--bind) binds+=("$2"); shift 2 ;;
		*) die "in_root: unknown option $1" ;;
		esac
	done
	shift
	ROOT=$root BINDS=$(printf '%s\n' "${binds[@]}") unshare -m --propagation private \
		bash "$SCRIPTS/chroot.sh" "$@"
}
