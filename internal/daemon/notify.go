package daemon

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	sdaemon "github.com/coreos/go-systemd/v22/daemon"

	"example.org/snapd/internal/api"
)

// notify tells the service manager the state of this run (sd_notify(3)).
func (d *daemon) notify(state string) {
	if _, err := sdaemon.SdNotify(false, state); err != nil {
		d.log.Warn("notify the service manager", "err", err)
	}
}

// hangups reloads the configuration at each signal until ctx is done.
func (d *daemon) hangups(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.o.Hangup:
		}
		d.notify(sdaemon.SdNotifyReloading + "\n" + sdaemon.SdNotifyMonotonicUsec())
		if _, err := d.Reload(ctx); err != nil {
			d.log.Error("the configuration was not reloaded, and the earlier one stays in effect", "err", err)
		}
		d.notify(sdaemon.SdNotifyReady)
	}
}

// watchdog tells the service manager that snapd answers, as often as the manager asks for
// it. The manager restarts a process that no longer does.
func (d *daemon) watchdog(ctx context.Context, socket net.Addr) error {
	interval, err := sdaemon.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("watchdog of the service manager", "err", err)
	}
	if interval <= 0 {
		return nil
	}
	for sleep(ctx, interval/3) {
		if err := answers(ctx, socket, interval/3); err == nil {
			d.notify(sdaemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			d.log.Error("the control socket does not answer", "err", err)
		}
	}
	return nil
}

// answers sends the control socket a request that needs neither the metadata nor the blob
// store, because these may be slow without a fault of this process.
func answers(ctx context.Context, socket net.Addr, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, socket.Network(), socket.String())
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://snapd"+api.Path+"status", nil)
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		return fmt.Errorf("status %d, expected %d", resp.StatusCode, http.StatusMethodNotAllowed)
	}
	return nil
}
