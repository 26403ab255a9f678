package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
)

// These tests run a few cases of each part of the command "torture".
func TestKills(t *testing.T) {
	n := 8
	if testing.Short() {
		n = 4
	}
	res, err := kills(t.Context(), t, build(t), uint64(time.Now().UnixNano()), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
	if res.Updates == 0 || res.Syncs == 0 || res.Freezes == 0 {
		t.Errorf("some kind of work never succeeded between the kills: %+v", res)
	}
}

func TestClusters(t *testing.T) {
	n := 6
	if testing.Short() {
		n = 3
	}
	o := clusterOptions{hasty: true}
	var err error
	if o.net, err = newNetwork(t, 3); errors.Is(err, errNoNetwork) {
		o.net = nil
		t.Run("Partitions", func(t *testing.T) { needs.Refused(t, err) })
	} else if err != nil {
		t.Fatal(err)
	} else if o.first, err = chosen("leader-without-PostgreSQL,node-without-both"); err != nil {
		t.Fatal(err)
	}
	res, err := clusters(t.Context(), t, build(t), uint64(time.Now().UnixNano()), n, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(res)
	if o.net != nil && res.Kept == 0 {
		t.Errorf("no node that was cut off served anything: %+v", res)
	}
	if res.Served == 0 || res.Frozen == 0 {
		t.Errorf("nothing was served or frozen: %+v", res)
	}
}

func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	needs.Programs(t, "apt-get", "dpkg")
	res, err := clients(t.Context(), t, build(t), uint64(time.Now().UnixNano()), 4, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(res)
	if res.Downloads == 0 || res.Moves == 0 {
		t.Errorf("nothing was downloaded or moved: %+v", res)
	}
}

func TestFullDisk(t *testing.T) {
	left := []int{0, 24, 300}
	if testing.Short() {
		left = left[1:2]
	}
	res, err := fills(t.Context(), t, build(t), left)
	if err != nil {
		t.Fatal(err)
	}
	can(t, res.Skip)
	t.Logf("%+v", res)
	if res.Refused == 0 {
		t.Error("no operation failed on a full file system")
	}
}

func TestInputOutputErrors(t *testing.T) {
	at := []int{2}
	if testing.Short() {
		at = []int{4}
	}
	res, err := inputOutput(t.Context(), t, build(t), at)
	if err != nil {
		t.Fatal(err)
	}
	can(t, res.Skip)
	t.Logf("%+v", res)
	if res.Refused+res.Died == 0 {
		t.Error("no operation failed, and snapd did not exit")
	}
}

func TestBadUpstream(t *testing.T) {
	every := 7
	if testing.Short() {
		every = 13
	}
	res, err := badUpstream(t.Context(), t, testSigner(t), every)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
	if res.Refused == 0 || res.Survived == 0 {
		t.Errorf("%+v: expected some of each", res)
	}
}

// can skips a test if something is missing, except as root in CI, where it fails.
func can(t *testing.T, missing string) {
	t.Helper()
	if missing == "" {
		return
	}
	needs.Refused(t, errors.New(missing))
}

var built string

func build(t *testing.T) string {
	t.Helper()
	if built == "" {
		var err error
		if built, err = buildSnapd(t.Context(), buildDir); err != nil {
			t.Fatal(err)
		}
	}
	return built
}

var buildDir string

func TestMain(m *testing.M) {
	dieIfAsked()
	var err error
	if buildDir, err = os.MkdirTemp("", "snapd-torture"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(code)
}

func TestDamagedMetadata(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 15
	}
	res, err := damages(t.Context(), t, build(t), uint64(time.Now().UnixNano()), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
	if res.Refused == 0 || res.Reported == 0 {
		t.Errorf("no damage was noticed: %+v", res)
	}
}
