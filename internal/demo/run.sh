#!/bin/sh
# The main job on this machine's own apt sources: mirror, sync, freeze, serve.
# Everything is kept below DIR (default ./run). LISTEN is where it is served:
# host:port, or a port of 127.0.0.1 (default 8080; later runs keep what they had).
# ONCE=1 stops after the freeze instead of serving until Ctrl-C.
set -eu
cd "$(dirname "$0")/../.."
PATH="$PWD/bin:$PATH"
DIR=${DIR:-$PWD/run}
config=$DIR/config.toml
mkdir -p "$DIR"

if [ ! -e "$config" ]; then
	# 3: some of the sources cannot be mirrored, and were named.
	snapctl init --from-apt --data-dir "$DIR/data" --output "$config" || [ $? -eq 3 ]
	sed -i 's/^interval = .*/interval = ""/' "$config"
fi
case ${LISTEN:-} in
"") ;;
*:*) sed -i "s/^listen = .*/listen = \"$LISTEN\"/" "$config" ;;
*) sed -i "s/^listen = .*/listen = \"127.0.0.1:$LISTEN\"/" "$config" ;;
esac
address=$(sed -n 's/^listen = "\(.*\)"/\1/p' "$config" | head -n 1)
SNAPCTL_SOCKET="$DIR/data/snapd.sock"
export SNAPCTL_SOCKET

snapd --config "$config" 2>"$DIR/snapd.log" &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
n=0
# Another snapd may answer at the socket: this one has to be alive.
until kill -0 $pid 2>/dev/null && snapctl mirror list >/dev/null 2>&1; do
	n=$((n + 1))
	if [ $n -gt 100 ] || ! kill -0 $pid 2>/dev/null; then
		cat "$DIR/snapd.log" >&2
		! grep -q 'the port is in use' "$DIR/snapd.log" || echo "choose another port: make run LISTEN=127.0.0.1:8081" >&2
		exit 1
	fi
	sleep 0.1
done

snapctl sync
if ! snapctl show demo-1 >/dev/null 2>&1; then
	snapctl freeze demo-1 --manifest internal/demo/demo.manifest --format debootstrap --with-deps
fi
snapctl verify demo-1
echo
echo "# /etc/apt/sources.list.d/demo-1.sources"
snapctl sources demo-1
echo
[ -z "${ONCE:-}" ] || exit 0
echo "serving http://$address/ until Ctrl-C; in another terminal: export SNAPCTL_SOCKET=$SNAPCTL_SOCKET; bin/snapctl status"
wait $pid
