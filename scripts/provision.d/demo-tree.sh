# SPDX-License-Identifier: GPL-2.0
# The tree that the demonstration copies: part of the kernel's source, and what a source tree does not have: hard and
# symbolic links, odd modes, owners, times and names, extended attributes, holes. With it its manifest, taken
# here. Device nodes and ACLs are left to other tests: Debian's `bcachefs format --source` gets the first wrong, and does not
# copy the second.

demo_tree_make() {
	local dir=$1 source=$2 tree=$1/tree i
	mkdir -p "$tree/linux"
	for i in include kernel mm block crypto; do
		mkdir -p "$tree/linux/$(dirname $i)"
		cp -a "$source/$i" "$tree/linux/$i"
	done
	# Large files, compressible and not.
	tar -C "$source" -cf "$tree/large.tar" Documentation fs lib
	xz -1 -T0 -k "$tree/large.tar"
	mkdir -p "$tree/odd/deep"
	(
		cd "$tree/odd"
		echo one >one; ln one "another name for one"; ln one deep/and-another
		ln -s one to-one; ln -s /nowhere dangling
		ln -s "$(printf 'x%.0s' $(seq 1000))" long-target
		mkfifo pipe
		: >empty
		printf 'twelve bytes' >inline
		truncate -s 8M hole; printf middle | dd of=hole bs=1 seek=4M conv=notrunc status=none
		echo >"$(printf 'n%.0s' $(seq 255))"
		printf 'x' >$'spaces, tabs\tand a newline\nin here'
		mkdir -p many; for i in $(seq 1000); do echo "$i" >"many/file-$i"; done
		for i in 0000 0400 0755 1777 2755 4755 6711; do mkdir -p modes; echo $i >modes/$i; chmod $i modes/$i; done
		echo owned >owner; chown 12345:54321 owner; echo nobody >nobody; chown 65534:65534 nobody
		echo old >old; touch -d '1971-02-03 04:05:06.789012345' old
		echo late >late; touch -d '2150-01-01 00:00:00.5' late
		touch -h -d '2001-01-01' dangling
		setfattr -n user.short -v v one
		setfattr -n user.long -v "$(printf 'y%.0s' $(seq 900))" one
		setfattr -n trusted.kept -v 'only root sees this' inline
		setfattr -n security.some -v label empty
	)
	{ MANIFEST_SUM=b2sum sh "$SCRIPTS/guest/manifest" --portable "$tree" && sh "$SCRIPTS/demo/links" "$tree"; } >"$dir/manifest"
}

# demo_tree: prints a directory holding tree/ and manifest.
demo_tree() {
	local source
	versions
	source=$(kernel_source) || return 1
	provision_host
	cached demo-tree "$(hash_of "$STOCK_VERSION" "$SCRIPTS/provision.d/demo-tree.sh" \
		"$SCRIPTS/demo/links" "$SCRIPTS/guest/manifest")" demo_tree_make "$source"
}
