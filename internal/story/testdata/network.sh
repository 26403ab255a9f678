# Makes three network namespaces, runs snapd in one of them, and the others' scripts in
# theirs. It runs in namespaces of its own for mounts and the network; $work has all files.
set -eu
mount -t tmpfs none /run
mkdir -p /run/netns
mount --bind "$work/hosts" /etc/hosts
ip link set lo up
for n in server builder manager; do
	ip netns add "$n"
	ip -n "$n" link set lo up
done
i=0
for n in builder manager; do
	i=$((i + 1))
	ip link add eth0 netns "$n" type veth peer name "$n" netns server
	ip -n server addr add "10.77.$i.1/24" dev "$n"
	ip -n server link set "$n" up
	ip -n "$n" addr add "10.77.$i.2/24" dev eth0
	ip -n "$n" link set eth0 up
	ip -n "$n" route add 10.77.0.1 via "10.77.$i.1"
done
ip -n server addr add 10.77.0.1/32 dev lo

on() { # on HOST SCRIPT
	echo "== $1: $2"
	(cd "$work/$1" && nsenter --net="/run/netns/$1" sh -eu "$work/$2.sh")
}
# apt in the root $1, whose sources are where the documentation writes them.
apt() {
	umount /etc/apt/sources.list.d 2>/dev/null || true
	mount --bind "$1/etc/apt/sources.list.d" /etc/apt/sources.list.d
	export APT_CONFIG="$1/etc/apt/apt.conf"
}

export SSL_CERT_FILE="$work/ca.pem" no_proxy="*" LC_ALL=C.UTF-8
(cd "$work/server" && exec nsenter --net=/run/netns/server snapd --config config.toml 2>snapd.log) &
snapd=$!
trap 'kill $snapd; wait $snapd' EXIT
until SNAPCTL_SOCKET="$work/server/data/snapd.sock" snapctl status >/dev/null 2>&1; do
	kill -0 $snapd
	sleep 0.1
done
on server tokens
cp "$work/server/builds.token" "$work/builder/"
cp "$work/server/release.token" "$work/server/admin.token" "$work/manager/"
for release in 1 2; do
	on manager "add$release"
	apt "$work/root$release"
	on builder "build$release"
	cp "$work/builder/image.squashfs" "$work/manager/4.$release.squashfs"
	on manager "freeze$release"
	on manager "publish$release"
	apt "$work/client"
	on manager follow
	on builder update
done
on manager withdraw
on builder update
on manager audit
