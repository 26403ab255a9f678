#!/bin/sh
# The main job on this machine's own apt sources: mirror, sync, freeze, serve.
# Everything is kept below DIR (default ./run); LISTEN is where it is served.
# ONCE=1 stops after the freeze instead of serving until Ctrl-C.
set -eu
cd "$(dirname "$0")/../.."
PATH="$PWD/bin:$PATH"
DIR=${DIR:-$PWD/run}
LISTEN=${LISTEN:-127.0.0.1:8080}
mkdir -p "$DIR"

if [ ! -e "$DIR/config.toml" ]; then
	# 3: some of the sources cannot be mirrored, and were named.
	snapctl init --from-apt --data-dir "$DIR/data" --output "$DIR/config.toml" || [ $? -eq 3 ]
	sed -i "s/^listen = .*/listen = \"$LISTEN\"/; s/^interval = .*/interval = \"\"/" "$DIR/config.toml"
fi
SNAPCTL_SOCKET="$DIR/data/snapd.sock"
export SNAPCTL_SOCKET

snapd --config "$DIR/config.toml" 2>"$DIR/snapd.log" &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
n=0
until snapctl status >/dev/null 2>&1; do
	n=$((n + 1))
	if [ $n -gt 100 ] || ! kill -0 $pid 2>/dev/null; then
		cat "$DIR/snapd.log" >&2
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
echo "serving http://$LISTEN/ until Ctrl-C; in another terminal: export SNAPCTL_SOCKET=$SNAPCTL_SOCKET; bin/snapctl status"
wait $pid
