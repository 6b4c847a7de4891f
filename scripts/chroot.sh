# SPDX-License-Identifier: GPL-2.0
# Second half of in_root (lib.sh): already in a private mount namespace; ROOT and BINDS (one
# SRC:DST a line) come by the environment.

set -euo pipefail

mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/tmp"
while IFS=: read -r src dst; do
	[ -n "$src" ] || continue
	if [ -d "$src" ]; then
		mkdir -p "$ROOT$dst"
	elif [ ! -e "$ROOT$dst" ]; then
		mkdir -p "$(dirname "$ROOT$dst")"
		: >"$ROOT$dst"
	fi
	mount --bind "$src" "$ROOT$dst"
done <<<"$BINDS"
unset BINDS

exec env -i HOME=/root TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 \
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	chroot "$ROOT" "$@"
