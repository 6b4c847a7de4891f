# SPDX-License-Identifier: GPL-2.0
# Judging a run by what its kernel said. Part of scripts/vm, whose variables it uses.

# What no kernel should ever say: one extended regular expression a line.
COMPLAINTS=$(cat <<'END'
BUG:
WARNING:
Oops
kernel BUG at
Kernel panic
general protection fault
stack segment:
KASAN:
KCSAN:
UBSAN:
INFO: task .* blocked for more than
INFO: rcu.* (detected|self-detected)
possible (recursive|circular) locking
possible irq lock inversion
inconsistent lock state
suspicious RCU usage
bad unlock balance
held lock freed
refcount_t:
list_(add|del) corruption
Objects remaining
kmemleak: [1-9][0-9]* new suspected
nobody cared
panicked at
Call Trace:
END
)

# The part of the log to judge. User-mode Linux warns of its own boot under atomic-sleep checks: what it says before the
# guest takes over is not counted.
our_log() {
	if [ "$lane" = uml ] && grep -q 'vm: guest is up' "$run/console"; then
		sed '1,/vm: guest is up/d' "$run/console"
	else
		cat "$run/console"
	fi 2>/dev/null | tr -d '\r'
}

# judge STATUS: exits with the verdict on a guest whose emulator ended with STATUS.
judge() {
	local what= complaint
	if [ "$1" = 124 ] || [ "$1" = 137 ]; then
		what="timed out after $timeout s" verdict=124
	elif complaint=$(our_log | grep -m1 -E -e "$COMPLAINTS"); then
		what="the kernel complained: $complaint" verdict=125
	elif [ ! -s "$run/status" ]; then
		what="the guest died" verdict=125
	else
		verdict=$(tr -dc 0-9 <"$run/status")
		[ "$verdict" != 126 ] || [ "$module" = none ] || ! grep -q 'vm: cannot load the module' "$run/console" ||
			what="the module could not be loaded"
	fi
	if [ -n "$what" ]; then
		say "vm: $what; the end of the kernel's log:"
		tail -n "${VM_TAIL:-60}" "$run/console" 2>/dev/null | tr -d '\r' >&2
	fi
	exit "$verdict"
}
