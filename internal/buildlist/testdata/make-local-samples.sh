#!/bin/bash
# Makes those samples in samples/ anew that need no archive: what apt, dpkg, dnf
# and rpm print about small packages in roots of their own. Needs root, dpkg-dev,
# apt, rpm, dnf and createrepo_c. After a run, `go test -update` writes their
# golden results.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1700000000
here=$(cd "$(dirname "$0")" && pwd)
out=$here/samples
tmp=$(mktemp -d /var/tmp/samples.XXXXXX)
trap 'rm -rf "$tmp"' EXIT
scrub() { sed -E -e "s#$tmp#/build#g" -e 's#^(Build Date  : ).*#\1Tue Nov 14 22:13:20 2023#'; }

# --- debs: a history of transactions, and selections
root=$tmp/root
mkdir -p "$tmp/debs" "$root"/{etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d},var/lib/dpkg/{info,updates},var/lib/apt/lists/partial,var/cache/apt/archives/partial,var/log/apt}
: >"$root/var/lib/dpkg/status"
deb() { # name version architecture multi-arch depends
	local d=$tmp/deb
	rm -rf "$d"
	mkdir -p "$d/DEBIAN" "$d/etc" "$d/usr/share/$1"
	echo "$2" >"$d/usr/share/$1/version"
	echo "# $1" >"$d/etc/$1.conf"
	echo "/etc/$1.conf" >"$d/DEBIAN/conffiles"
	printf 'Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Sample <sample@example.org>\nMulti-Arch: %s\n%sDescription: sample\n' \
		"$1" "$2" "$3" "$4" "${5:+Depends: $5
}" >"$d/DEBIAN/control"
	dpkg-deb -b --root-owner-group "$d" "$tmp/debs" >/dev/null
	(cd "$tmp/debs" && dpkg-scanpackages -m . 2>/dev/null >Packages)
}
echo "deb [trusted=yes] copy:$tmp/debs ./" >"$root/etc/apt/sources.list"
cat >"$tmp/apt.conf" <<EOF
Dir "$root";
Dir::Log "$root/var/log/apt";
Dir::State::status "$root/var/lib/dpkg/status";
APT::Architecture "amd64";
APT::Sandbox::User "root";
DPkg::Options { "--root=$root"; "--force-script-chrootless"; "--log=/dev/null"; };
DPkg::Path "$PATH";
EOF
apt() { APT_CONFIG=$tmp/apt.conf apt-get -qq -y "$@" >/dev/null 2>&1; }
deb libtiny1 1:1.0-1 amd64 same
deb tiny 1.0-1 amd64 foreign libtiny1
deb tiny-data 0.5 all foreign
deb other 3 amd64 no
apt update
apt install tiny tiny-data other
deb libtiny1 1:1.0-2 amd64 same
deb tiny 1.1-1 amd64 foreign libtiny1
apt update
apt upgrade
apt remove other
apt --allow-downgrades install tiny=1.0-1
apt install --reinstall libtiny1
scrub <"$root/var/log/apt/history.log" >"$out/apt-history.log"
echo 'libtiny1 hold' | dpkg --root="$root" --set-selections
dpkg --root="$root" --get-selections >"$out/dpkg-selections.txt"
dpkg --root="$root" --get-selections | sed 's/:amd64//' >"$out/dpkg-selections-plain.txt"
dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package} ${Version} ${Architecture}\n' >"$out/columns.txt"

# --- rpms
spec() { # name epoch version release arch
	printf 'Name: %s\n%sVersion: %s\nRelease: %s\nSummary: sample\nLicense: MIT\n%s%%description\nSample.\nName : of nothing\n%%files\n' \
		"$1" "${2:+Epoch: $2
}" "$3" "$4" "${5:+BuildArch: $5
}" >"$tmp/$1.spec"
	rpmbuild --quiet --define "_topdir $tmp/rpmbuild" --define '_buildhost host' -bb "$tmp/$1.spec" >/dev/null 2>&1
}
spec sample-tools '' 1.2~rc1 3.fc40 noarch
spec sample-tools '' 1.3 1.fc40 noarch
spec sample-lib '' 1.2^20240101git1a2b3c4 1.fc40 ''
spec Sample_Daemon 32 9.18.26 1.fc40 ''
mkdir "$tmp/repo"
cp "$tmp"/rpmbuild/RPMS/*/*.rpm "$tmp/repo"
createrepo_c -q "$tmp/repo"
cat >"$tmp/dnf.conf" <<EOF
[main]
reposdir=/nonexistent
gpgcheck=0
plugins=0
cachedir=/cache
logdir=/log
[fedora]
name=fedora
baseurl=file://$tmp/repo
EOF
dnfroot=$tmp/dnfroot
mkdir -p "$dnfroot/log"
d() { dnf -q -y -c "$tmp/dnf.conf" --installroot="$dnfroot" --releasever=40 "$@" 2>/dev/null; }
d install sample-tools-1.2~rc1 sample-lib >/dev/null
d upgrade >/dev/null
d install Sample_Daemon >/dev/null
d remove sample-lib >/dev/null
d downgrade sample-tools >/dev/null
d reinstall Sample_Daemon >/dev/null
d history info 1 2 3 4 5 6 | scrub >"$out/dnf-history.txt"
d history info 1..3 | scrub >"$out/dnf-history-range.txt"
d history userinstalled >"$out/dnf-userinstalled.txt"
d info --installed | scrub >"$out/dnf-info.txt"
r() { rpm --root "$dnfroot" "$@"; }
r -qa --last >"$out/rpm-qa-last.txt"
r -qi sample-tools Sample_Daemon | scrub >"$out/rpm-qi.txt"
r -qa --qf '%{NAME}\t%{EPOCH}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\n' | sort >"$out/rpm-qa-tabs.txt"
r -qa --qf '%{NAME},%{EPOCH},%{VERSION},%{RELEASE},%{ARCH}\n' | sort >"$out/rpm-qa-commas.txt"
r -qa --qf '%{NAME}|%{VERSION}|%{RELEASE}|%{ARCH}\n' | sort >"$out/rpm-qa-bars.txt"
