// Torture disturbs snapd in all the ways that the README lists, and checks each
// time that nothing is lost. Run it with "make torture" or
//
//	go run ./internal/torture [-short] [-minutes N] [-seed N] [-only PART,…]
//
// It prints what it did and found, with counts. It exits with code 1 if
// something was lost, or if it cut the power after fewer steps than it counted.
// The report of a failure contains what is needed to reproduce it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	dieIfAsked()
	os.Exit(run())
}

func run() (code int) {
	short := flag.Bool("short", false, "run only a few cases of each part")
	minutes := flag.Int("minutes", 5, "repeat the random parts for `N` minutes, after the others")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano())%1_000_000, "seed of the random parts")
	only := flag.String("only", "", "run only these `parts`, separated by commas: "+strings.Join(parts, ", "))
	rounds := flag.Int("rounds", 0, "do `N` rounds of the part cluster (default: 40 for each of -minutes)")
	disturb := flag.String("disturb", "", "disturb the part cluster only in these `ways`, separated by commas: "+strings.Join(disturbanceNames(), ", "))
	flag.Parse()
	ways, err := chosen(*disturb)
	if err != nil {
		fmt.Println("torture: error:", err)
		return 2
	}
	if *only != "" {
		for name := range strings.SplitSeq(*only, ",") {
			if !slices.Contains(parts, name) {
				fmt.Printf("torture: error: -only %s: no such part (expected some of %s)\n", name, strings.Join(parts, ","))
				return 2
			}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx}
	defer b.close()
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			fmt.Println("torture: error:", f)
			code = 1
		}
	}()
	if err := torture(ctx, b, options{short: *short, minutes: *minutes, seed: *seed, only: *only, rounds: *rounds, ways: ways}); err != nil {
		fmt.Println("torture: error:", err)
		return 1
	}
	return 0
}

// parts are the names of the parts, in the order in which they run.
var parts = []string{"faults", "deaths", "histories", "races", "upstream", "full", "eio", "power", "metadata", "kills", "cluster", "clients"}

type options struct {
	short   bool
	minutes int
	seed    uint64
	only    string
	rounds  int           // of the part cluster; 0: as many as fit
	ways    []disturbance // of the part cluster; nil: all
}

// Long because the order of its steps is the test.
func torture(ctx context.Context, b *bench, o options) error {
	start := time.Now()
	fmt.Printf("seed %d\n", o.seed)
	binary, err := buildSnapd(ctx, b.TempDir())
	if err != nil {
		return err
	}
	signer, err := throwawaySigner()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	failures := 0
	report := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failures++; failures <= 50 {
			fmt.Println("FAILED", err)
		}
	}
	pick := func(long, short int) int {
		if o.short {
			return short
		}
		return long
	}
	part := func(name string, f func() (string, error)) {
		if o.only != "" && !strings.Contains(","+o.only+",", ","+name+",") || ctx.Err() != nil {
			return
		}
		from := time.Now()
		done, err := f()
		if err != nil {
			report(fmt.Errorf("%s: %w", name, err))
		}
		fmt.Printf("%-10s %s (%v)\n", name, done, time.Since(from).Round(time.Second))
	}

	var table *faultTable
	needTable := func() (err error) {
		if table == nil {
			table, err = newFaultTable(ctx, b, signer)
		}
		return err
	}
	part("faults", func() (string, error) {
		if err := needTable(); err != nil {
			return "", err
		}
		rows := table.run(ctx, pick(1, 41), report)
		return fmt.Sprintf("%d of %d rows: each write of %d operations failed, without effect and with it", rows, table.total(), len(table.jobs)), nil
	})
	part("deaths", func() (string, error) {
		if err := needTable(); err != nil {
			return "", err
		}
		rows, err := table.deaths(ctx, pick(1, 61), report)
		return fmt.Sprintf("%d processes killed at a write", rows), err
	})
	part("histories", func() (string, error) {
		total := map[string]int{}
		n, ops := 0, 0
		for until := time.Now().Add(time.Duration(pick(o.minutes*60, 3)) * time.Second); n < pick(100, 2) || !o.short && time.Now().Before(until); n++ {
			done, err := history(ctx, b, signer, o.seed+uint64(n), 45)
			for k, v := range done {
				total[k] += v
				ops += v
			}
			if err != nil {
				report(err)
			}
			if ctx.Err() != nil {
				break
			}
		}
		return fmt.Sprintf("%d random histories of %d operations: %v", n, ops, total), nil
	})
	part("races", func() (string, error) {
		later, err := throwawaySigner()
		if err != nil {
			return "", err
		}
		r, err := races(ctx, b, signer, later, o.seed, pick(1000, 20))
		return r.String(), err
	})
	part("upstream", func() (string, error) {
		r, err := badUpstream(ctx, b, signer, pick(1, 13))
		return fmt.Sprintf("%d misbehaviours at %d requests: %d syncs refused, %d took the right state all the same", r.Cases, r.Requests, r.Refused, r.Survived), err
	})
	part("full", func() (string, error) {
		left := []int{0, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024}
		if o.short {
			left = left[4:5]
		}
		r, err := fills(ctx, b, binary, left)
		return counts(r, "a file system filled"), err
	})
	part("eio", func() (string, error) {
		at := []int{1, 2, 3, 5, 8, 13, 21, 34}
		if o.short {
			at = at[2:3]
		}
		r, err := inputOutput(ctx, b, binary, at)
		return counts(r, "reads and writes failed with EIO"), err
	})
	part("power", func() (string, error) {
		p, err := recordPower(ctx, b, binary)
		if err != nil {
			return "", err
		}
		if p.skip != "" {
			return "skipped: " + p.skip, fmt.Errorf("cannot be done here: %s", p.skip)
		}
		r := p.cuts(ctx, o.seed, pick(1, 120), 1, report)
		if !o.short && r.Cut < r.Points {
			err = fmt.Errorf("%d points were cut, %d were counted", r.Cut, r.Points)
		}
		return fmt.Sprintf("%d steps counted (%v), the power cut after %d of them: %d states of the disk opened, %d equal to one of those, %d bad", r.Points, r.Steps, r.Cut, r.Images, r.Equal, r.Failed), err
	})
	part("metadata", func() (string, error) {
		r, err := damages(ctx, b, binary, o.seed, pick(1000, 20))
		return fmt.Sprintf("metadata damaged %d times: %d starts refused, %d of them salvaged; %d damages reported, %d repaired, %d with losses that stay reported; %d harmless", r.Damages, r.Refused, r.Salvaged, r.Reported, r.Repaired, r.Lost, r.Harmless), err
	})
	part("kills", func() (string, error) {
		r, err := kills(ctx, b, binary, o.seed, pick(220, 4))
		return fmt.Sprintf("snapd killed %d times, %d of them at work (%d syncs, %d freezes, %d removals, %d collections done); apt: %d updates, %d installs, %d met a dead server; %d freezes verified after restarts", r.Kills, r.Busy, r.Syncs, r.Freezes, r.Removals, r.GCs, r.Updates, r.Installs, r.Refused, r.Frozen), err
	})
	part("cluster", func() (string, error) {
		n := o.rounds
		if n == 0 {
			n = pick(o.minutes*40, 4)
		}
		net, err := newNetwork(b, 3)
		if err != nil {
			return "", err
		}
		r, err := clusters(ctx, b, binary, o.seed, n, clusterOptions{net: net, ways: o.ways, every: 1 + n/200})
		return r.String(), err
	})
	part("clients", func() (string, error) {
		r, err := clients(ctx, b, binary, o.seed, pick(100, 4), pick(50, 3), pick(10, 1))
		return r.String(), err
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	fmt.Printf("%d failures in %v\n", failures, time.Since(start).Round(time.Second))
	if failures > 0 {
		return fmt.Errorf("%d failures (seed %d)", failures, o.seed)
	}
	return nil
}

func counts(r fullResult, what string) string {
	if r.Skip != "" {
		return "skipped: " + r.Skip
	}
	return fmt.Sprintf("%s %d times: %d operations refused, %d had enough, %d times snapd ended and recovered", what, r.Cases, r.Refused, r.Succeeded, r.Died)
}
