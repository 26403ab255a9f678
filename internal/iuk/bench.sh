#!/bin/sh
# Times kits and images beside the classic way (overlay mount, rsync, mksquashfs),
# on a real Debian system at two states, and prints ratios. Needs root,
# mmdebstrap, rsync, squashfs-tools.
#
#   bench.sh [DIR]    DIR keeps trees and images between runs; default /var/tmp/iuk-bench
#
# SIZE=small takes a system of 300 MB in place of a desktop of 2 GB, SIZE=middle one of
# 1 GB, both with xz alone: some ten and twenty minutes in place of an hour and more.
#
# The packages come from the Debian archives in this machine's apt sources: state
# 1 from its release as it was published, state 2 with updates and further packages.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
size=${SIZE:-large}
dir=${1:-/var/tmp/iuk-bench-$size}
mkdir -p "$dir"
cd "$dir"
bin=$dir/iukbench
(cd "$here" && go build -o "$bin" ./iukbench)

# Archives: base URL, suite, component.
if [ ! -e 2.tar ]; then
	. /etc/os-release
	apt-get indextargets --format '$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		sed -n 's/^Debian|//p' | sort -u >sources.list
	grep " $VERSION_CODENAME main" sources.list >sources1.list
	case $size in
	small)
		include=python3,perl,vim,git,less,openssh-client,curl,man-db,gnupg,file
		more=tmux,htop,gdb
		;;
	middle)
		include=python3,perl,vim,git,less,openssh-client,curl,locales,man-db,gnupg,file,network-manager,firefox-esr,gimp,fonts-dejavu
		more=tmux,htop,gdb
		;;
	large)
		include=iputils-ping,python3,perl,vim,git,less,openssh-client,curl,locales,man-db,gnupg,file,network-manager,iptables,rsync,firefox-esr,libreoffice-core,fonts-dejavu,gimp,gdb
		more=tmux,htop,emacs-nox,inkscape
		;;
	*)
		echo "SIZE is $size, expected small, middle or large" >&2
		exit 2
		;;
	esac
	export SOURCE_DATE_EPOCH=1700000000
	mmdebstrap --quiet --variant=important --include=$include "$VERSION_CODENAME" 1.tar - <sources1.list
	mmdebstrap --quiet --variant=important --include=$include,$more "$VERSION_CODENAME" 2.tmp.tar - <sources.list
	mv 2.tmp.tar 2.tar
	unset SOURCE_DATE_EPOCH # which mksquashfs does not take beside its options
fi
for i in 1 2; do
	[ -d tree$i ] || { mkdir tree$i.tmp; tar --xattrs --xattrs-include='*' -C tree$i.tmp -xf $i.tar; mv tree$i.tmp tree$i; }
done

args() {
	case $1 in
	zstd) echo -comp zstd -b 128K ;;
	xz) echo -comp xz -Xbcj x86 -b 1024K -Xdict-size 1024K -no-exports ;;
	esac
}
mksq() { mksquashfs "$1" "$2" -noappend -quiet -no-progress -mkfs-time 1700000000 $(args "$3"); }
now() { date +%s.%N; }
# Processor time of all children so far, in seconds: other work changes it least.
cpu() { awk '{ print ($16 + $17) / 100 }' /proc/$$/stat; }
calc() { awk "BEGIN { printf \"%.2f\", $1 }"; }

# classic COMPRESSOR: seconds, bytes and processor time of the difference made the classic
# way.
classic() {
	t=$(mktemp -d)
	mkdir "$t/old" "$t/new" "$t/tmp"
	mount -o loop,ro "1.$1.squashfs" "$t/old"
	mount -o loop,ro "2.$1.squashfs" "$t/new"
	mount -t tmpfs -o size=80% tmpfs "$t/tmp"
	mkdir "$t/tmp/rw" "$t/tmp/work" "$t/tmp/mount"
	s=$(now)
	p=$(cpu)
	mount -t overlay -o "lowerdir=$t/old,upperdir=$t/tmp/rw,workdir=$t/tmp/work" overlay "$t/tmp/mount"
	rsync --archive --quiet --delete-after --acls --checksum --xattrs "$t/new/" "$t/tmp/mount/"
	umount "$t/tmp/mount"
	mksq "$t/tmp/rw" "classic.$1.squashfs" "$1"
	e=$(now)
	q=$(cpu)
	umount "$t/tmp" "$t/old" "$t/new"
	rm -rf "$t"
	echo "$(calc "$e-$s") $(stat -c %s "classic.$1.squashfs") $(calc "$q-$p")"
}

compressors=xz
[ "$size" != large ] || compressors="zstd xz"
for c in $compressors; do
	for i in 1 2; do
		if [ ! -e $i.$c.squashfs ]; then
			s=$(now)
			mksq tree$i/ tmp.squashfs $c
			calc "$(now)-$s" >$i.$c.seconds
			mv tmp.squashfs $i.$c.squashfs
		fi
	done
	[ -s classic.$c ] || classic $c >classic.$c
	read -r old_s old_b old_p <classic.$c
	mkdir -p kits
	rm -f kits/*
	p=$(cpu)
	set -- $("$bin" kit 2.$c.squashfs kits 1.$c.squashfs)
	q=$(cpu)
	one=$1
	echo "$c kit: classic ${old_s} s, $old_b bytes; here $1 s, $3 bytes, peak RssAnon $(calc "$2/1000000") MB"
	echo "$c kit: $(calc "$old_s/$1") times faster, $(calc "($3/$old_b-1)*100") % larger; processor time $old_p s and $(calc "$q-$p") s, $(calc "$old_p/($q-$p)") times"
	ten=
	for i in 0 1 2 3 4 5 6 7 8 9; do ten="$ten 1.$c.squashfs"; done
	rm -f kits/*
	set -- $("$bin" kit 2.$c.squashfs kits $ten)
	rm -f kits/*
	echo "$c ten kits: $1 s, $(calc "$1/$one") times one, peak RssAnon $(calc "$2/1000000") MB"
done
[ "$size" = large ] || exit 0
set -- $("$bin" pack zstd 131072 2.tar pack.squashfs)
mk=$(cat 2.zstd.seconds)
echo "zstd pack: mksquashfs $mk s, $(stat -L -c %s 2.zstd.squashfs) bytes; here $1 s ($(calc "$1/$mk") times), $3 bytes, peak RssAnon $(calc "$2/1000000") MB"
