#!/bin/bash
# Makes the samples in samples/ anew, each by the tool whose format it has. Needs
# root, a Debian machine with its own apt sources, and: mmdebstrap, debootstrap,
# dpkg-dev, debhelper, build-essential, libyaml-libyaml-perl, rpm, gpg, Go.
# The samples change with the archive; after a run, `go test -update` writes
# their golden results.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC COLUMNS=160 SOURCE_DATE_EPOCH=1700000000 DEBIAN_FRONTEND=noninteractive
here=$(cd "$(dirname "$0")" && pwd)
out=$here/samples
suite=${1:-bookworm}
tmp=$(mktemp -d /var/tmp/samples.XXXXXX)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$out"

# apt's sources as one-line entries of this suite's main archive.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
	awk -v s="$suite" '$2 == s {print $1; exit}')
echo "deb $mirror $suite main" >"$tmp/sources.list"

# No sample names a host or a path of the machine that made it.
scrub() {
	sed -E -e "s#(https?|file)(://|%3A%2F%2F|:%2F%2F)[^/'\" ]*archive[^/'\" ]*/#\1\2mirror.example.org/#g" \
		-e "s#${mirror%/}#http://mirror.example.org/debian#g" \
		-e "s#(file://)?$tmp#/build#g"
}

# --- a small root with apt in it; its list is what a hook of mmdebstrap prints
root=$tmp/root
mmdebstrap --quiet --variant=apt --mode=root \
	--customize-hook='chroot "$1" dpkg-query -W -f '\''${binary:Package} ${Version}\n'\'' >'"$tmp/mmdebstrap.txt" \
	"$suite" "$root" "$tmp/sources.list"
scrub <"$tmp/mmdebstrap.txt" >"$out/mmdebstrap.txt"

# --- dpkg and apt, asked inside the root; one package removed, one held
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qq -y --no-install-recommends install hello cron </dev/null >/dev/null 2>&1
chroot "$root" apt-get -qq -y remove cron </dev/null >/dev/null 2>&1 # leaves its configuration
chroot "$root" apt-mark hold hello >/dev/null
chroot "$root" dpkg-query -W >"$out/dpkg-query.txt"
chroot "$root" env COLUMNS=160 dpkg -l >"$out/dpkg-l.txt"
chroot "$root" dpkg-query -W -f '${binary:Package}=${Version}\n' | grep -v '^cron=' >"$out/list.txt"
chroot "$root" apt list --installed 2>&1 | scrub >"$out/apt-list.txt"
awk 'BEGIN {RS = ""; ORS = "\n\n"} NR <= 20 || /\nPackage: (cron|hello)\n/ || /^Package: (cron|hello)\n/' \
	"$root/var/lib/dpkg/status" | sed 's/^Maintainer: .*/Maintainer: Sample <sample@example.org>/' >"$out/dpkg-status.txt"
chroot "$root" apt-get -s -y --no-install-recommends install less libc6-dev 2>/dev/null >"$out/apt-simulate.txt"

# --- apt-get --print-uris, with and without the words around it
chroot "$root" apt-get -y --no-install-recommends --print-uris install less libpng16-16 libxpm4 2>/dev/null | scrub >"$out/print-uris.txt"
chroot "$root" apt-get -qq -y --print-uris -o Acquire::ForceHash=SHA256 install vim-tiny 2>/dev/null |
	scrub >"$out/print-uris-quiet.txt"

# --- debootstrap
debootstrap --variant=minbase --print-debs "$suite" "$tmp/print-debs" "$mirror" >"$out/debootstrap-print-debs.txt" 2>/dev/null
debootstrap --variant=minbase --download-only --keep-debootstrap-dir "$suite" "$tmp/deburis" "$mirror" >/dev/null
scrub <"$tmp/deburis/debootstrap/deburis" >"$out/debootstrap-deburis.txt"

# --- a source package, its .buildinfo, plain and clear-signed
export GNUPGHOME=$tmp/gnupg
mkdir -m 0700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-gen-key 'Sample <sample@example.org>' ed25519 sign never 2>/dev/null
src=$tmp/build/tiny-1.0
mkdir -p "$src/debian/source"
echo '3.0 (native)' >"$src/debian/source/format"
printf 'tiny (1:1.0) unstable; urgency=low\n\n  * Sample.\n\n -- Sample <sample@example.org>  Tue, 14 Nov 2023 22:13:20 +0000\n' >"$src/debian/changelog"
printf 'Source: tiny\nSection: misc\nPriority: optional\nMaintainer: Sample <sample@example.org>\nBuild-Depends: debhelper-compat (= 13)\nStandards-Version: 4.6.2\n\nPackage: tiny\nArchitecture: all\nDescription: sample\n A sample.\n' >"$src/debian/control"
printf '#!/usr/bin/make -f\n%%:\n\tdh $@\n' >"$src/debian/rules"
chmod +x "$src/debian/rules"
(cd "$src" && env -i PATH="$PATH" LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH HOME="$tmp" \
	dpkg-buildpackage -us -uc >/dev/null 2>&1)
scrub <"$tmp/build/tiny_1.0_$(dpkg --print-architecture).buildinfo" >"$out/tiny.buildinfo"
gpg --batch --quiet --clearsign --faked-system-time 20231114T221320! <"$out/tiny.buildinfo" >"$out/tiny-signed.buildinfo" 2>/dev/null ||
	gpg --batch --quiet --clearsign <"$out/tiny.buildinfo" >"$out/tiny-signed.buildinfo"

# --- rpms: with and without epoch, a source rpm, a public key
top=$tmp/rpmbuild
mkdir -p "$top"
spec() { # name epoch version release arch
	printf 'Name: %s\n%sVersion: %s\nRelease: %s\nSummary: sample\nLicense: MIT\n%s%%description\nSample.\n%%files\n' \
		"$1" "${2:+Epoch: $2
}" "$3" "$4" "${5:+BuildArch: $5
}" >"$tmp/$1.spec"
	rpmbuild --quiet --define "_topdir $top" --define '_buildhost host' -ba "$tmp/$1.spec" >/dev/null 2>&1
}
spec sample-tools '' 1.2~rc1 3.fc40 noarch
spec sample-lib '' 1.2^20240101git1a2b3c4 1.fc40 ''
spec Sample_Daemon 32 9.18.26 1.fc40 ''
db=$tmp/rpmroot
mkdir -p "$db"
rpm --root "$db" --initdb
rpm --root "$db" --nodeps --noscripts --justdb -i "$top"/RPMS/*/*.rpm
gpg --armor --export >"$tmp/key.asc"
rpm --root "$db" --import "$tmp/key.asc"
rpm --root "$db" -qa | sort >"$out/rpm-qa.txt"
rpm --root "$db" -qa --qf '%{NEVRA}\n' | sort >"$out/rpm-qa-nevra.txt"
rpm --root "$db" -qa --qf '%{NAME}-%{EPOCH}:%{VERSION}-%{RELEASE}.%{ARCH}\n' | sort >"$out/rpm-qa-epoch.txt"
rpm --root "$db" -qa --qf '%{NAME}.%{ARCH} %{VERSION}-%{RELEASE}\n' | sort >"$out/rpm-qa-columns.txt"

# --- sha256sum and its kin
mkdir -p "$tmp/sums/pool/main"
cp "$top"/RPMS/*/*.rpm "$top"/SRPMS/*.rpm "$tmp"/build/tiny_1.0* "$tmp/sums/pool/main/"
(cd "$tmp/deburis/var/cache/apt/archives" && cp base-files_* adduser_* libc6_* "$tmp/sums/pool/main/")
(cd "$tmp/sums" && find pool -type f | sort | xargs sha256sum) >"$out/SHA256SUMS"
(cd "$tmp/sums" && find pool -type f -name '*.deb' | sort | xargs sha256sum --binary) >"$out/SHA256SUMS-binary"
(cd "$tmp/sums" && find pool -type f -name '*.deb' | sort | xargs sha256sum --tag) >"$out/SHA256SUMS-tag"

# --- Tails' build manifest: its own generator needs a Tails build, so the YAML
# writer that it uses is fed with the same structure
perl -MYAML::XS -e '
	my (@bin, %refs);
	while (<STDIN>) { my ($p, $v, $u) = split; my ($a) = $u =~ /_([^_]+)\.deb$/; push @bin, {package => $p, version => $v, arch => $a} }
	%refs = ("debian" => {reference => "2024101502"}, "debian-security" => {reference => "2024110803"}, "torproject" => {reference => "2024103001"});
	print YAML::XS::Dump({origin_references => \%refs, packages => {binary => [@bin[0..24]],
		source => [{package => "tiny", version => "1:1.0"}, {package => "float", version => "1.10"}]}});
' <"$out/debootstrap-deburis.txt" >"$out/tails.build-manifest"

# --- rpms.lock.yaml: written here, of the rpms above; its generator is a Python
# tool outside the distribution
{
	printf -- '---\nlockfileVersion: 1\nlockfileVendor: redhat\narches:\n- arch: x86_64\n  packages:\n'
	item() {
		printf -- '  - url: https://mirror.example.org/fedora/40/%s/%s\n    repoid: fedora\n    size: %s\n    checksum: sha256:%s\n    name: %s\n    evr: %s\n' \
			"$1" "$(basename "$2")" "$(stat -c %s "$2")" "$(sha256sum "$2" | cut -c1-64)" \
			"$(rpm -qp --qf '%{NAME}' "$2")" "$(rpm -qp --qf '%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}' "$2")"
	}
	for f in "$top"/RPMS/*/*.rpm; do
		item x86_64 "$f"
		echo "    sourcerpm: $(rpm -qp --qf '%{SOURCERPM}' "$f")"
	done
	printf '  source:\n'
	for f in "$top"/SRPMS/*.rpm; do item source "$f"; done
	printf '  module_metadata:\n  - url: https://mirror.example.org/fedora/40/modules.yaml.gz\n    repoid: fedora\n    size: 10\n    checksum: sha256:%064d\n' 0
} >"$out/rpms.lock.yaml"

# --- bills of materials of a root with a few packages of both kinds, by syft
GOBIN=$tmp/bin go install github.com/anchore/syft/cmd/syft@v1.20.0
bom=$tmp/bom
mkdir -p "$bom/var/lib/dpkg" "$bom/var/lib/rpm" "$bom/etc"
cp "$root/etc/os-release" "$bom/etc/"
awk 'BEGIN {RS = ""; ORS = "\n\n"} NR <= 12' "$out/dpkg-status.txt" >"$bom/var/lib/dpkg/status"
cp "$db/var/lib/rpm/"* "$bom/var/lib/rpm/" 2>/dev/null || cp "$db$HOME/.rpmdb/"* "$bom/var/lib/rpm/"
(
	cd "$bom"
	export SYFT_CHECK_FOR_APP_UPDATE=false SYFT_FORMAT_PRETTY=true SYFT_FILE_METADATA_SELECTION=none
	"$tmp/bin/syft" -q scan "dir:." --source-name sample -o spdx-json@2.3="$tmp/spdx.json" \
		-o cyclonedx-json@1.4="$tmp/cdx14.json" -o cyclonedx-json@1.5="$tmp/cdx15.json" -o cyclonedx-json@1.6="$tmp/cdx16.json"
)
scrub <"$tmp/spdx.json" >"$out/syft.spdx.json"
for v in 14 15 16; do scrub <"$tmp/cdx$v.json" >"$out/syft-$v.cdx.json"; done
