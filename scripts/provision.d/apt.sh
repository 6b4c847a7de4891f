# SPDX-License-Identifier: GPL-2.0
# Debian's archive, through an apt configuration of our own: the machine's sources, lists and cache stay as they
# are. The site is taken from the machine's configuration, never from a name written here.

RELEASE=trixie
APT=$CACHE/apt
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# site_of main|security: base URL of the archive this machine uses.
site_of() {
	local main security
	main=$(apt-get indextargets --format '$(SITE) $(ORIGIN) $(CODENAME)' 'Identifier: Packages' |
		awk '$1 !~ /security/ && $0 ~ /Debian|debian/ { print $1; exit }')
	[ -n "$main" ] || die "no Debian archive among this machine's apt sources"
	security=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' |
		awk '/security/ { print; exit }')
	case $1 in
	main) printf '%s\n' "$main" ;;
	security) printf '%s\n' "${security:-${main%/}-security}" ;;
	esac
}

# deb_lines SUITE...: sources.list lines. Copies of experimental may be weeks old.
deb_lines() {
	local suite site options
	for suite in "$@"; do
		site=$(site_of main)
		options="signed-by=$KEYRING"
		case $suite in
		*-security) site=$(site_of security) ;;
		experimental) options="$options check-valid-until=no" ;;
		esac
		printf 'deb [%s] %s %s main\n' "$options" "$site" "$suite"
	done
}

# apt_with SET TOOL ARGS...: runs apt-get or apt-cache on one of our sets of suites (trixie, experimental).
apt_with() {
	local set=$1 tool=$2
	shift 2
	"$tool" -o Dir::Etc::sourcelist="$APT/$set.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$APT/$set.lists" -o Dir::Cache="$APT/cache" \
		-o Dir::State::status=/dev/null -o APT::Architecture=amd64 -o APT::Architectures=amd64 \
		-o APT::Sandbox::User=root "$@"
}

apt_update() {
	mkdir -p "$APT/trixie.lists/partial" "$APT/experimental.lists/partial" "$APT/cache/archives/partial"
	deb_lines $RELEASE $RELEASE-updates $RELEASE-backports $RELEASE-security >"$APT/trixie.list"
	deb_lines experimental >"$APT/experimental.list"
	apt_with trixie apt-get -q update
	apt_with experimental apt-get -q update
}

# fetch_debs SET DIR PACKAGE...: downloads packages (NAME or NAME=VERSION) into DIR.
fetch_debs() {
	local set=$1 dir=$2
	shift 2
	(cd "$dir" && apt_with "$set" apt-get -q download "$@")
}
