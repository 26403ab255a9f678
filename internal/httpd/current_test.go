package httpd_test

import (
	"context"
	"sync/atomic"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
)

// asked is metadata that counts how it is asked for freezes and recordings.
type asked struct {
	meta.Store
	current, any atomic.Int32
}

func (a *asked) count(ctx context.Context) {
	if meta.OnlyCurrent(ctx) {
		a.current.Add(1)
	} else {
		a.any.Add(1)
	}
}

func (a *asked) Freeze(ctx context.Context, name meta.FreezeName) (*meta.Frozen, error) {
	a.count(ctx)
	return a.Store.Freeze(ctx, name)
}

func (a *asked) Recording(ctx context.Context, name string) (*meta.Recording, error) {
	a.count(ctx)
	return a.Store.Recording(ctx, name)
}

// A request that changes something is judged and run by what the metadata contain now, not
// by what a node remembers of them.
func TestChangesAskCurrentMetadata(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.All })
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	s.stop()
	st := &asked{Store: s.Config.Store}
	s.Config.Store = st
	var err error
	if s.Parts, err = mirrortest.Compose(s.Config); err != nil {
		t.Fatal(err)
	}
	s.start()
	for _, c := range []struct {
		verb string
		req  any
	}{
		{"label", api.LabelRequest{Name: "4.1", Labels: map[string]string{"tested": "yes"}}},
		{"pin", api.PinRequest{Ref: "4.1"}}, // refused: only snapshots are pinned
		{"freeze", api.FreezeRequest{Name: "4.2", Base: "4.1"}},
		{"rm", api.RefRequest{Ref: "4.2"}},
	} {
		err := s.control.Call(t.Context(), c.verb, c.req, nil, nil)
		if current, other := st.current.Swap(0), st.any.Swap(0); current == 0 || other > 0 {
			t.Errorf("%s (%v): %d questions, and %d that memory may answer", c.verb, err, current, other)
		}
	}
	if s.call("show", api.ShowRequest{Ref: "4.1"}, nil); st.any.Load() == 0 {
		t.Error("show: no question that memory may answer")
	}
}
