package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"example.org/snapd/internal/api"
)

func TestMain(m *testing.M) {
	completeTimeout = time.Minute
	testscript.Main(m, map[string]func(){"snapctl": main})
}

// TestScript runs the scripts in testdata/script against a fake snapd:
//
//	answer VERB FILE   answer VERB with the line in FILE: {"result": ...} or {"error": ...}
//	asked FILE         what was asked since the last time is what FILE says
//	exit N CMD...      CMD ends with this code
func TestScript(t *testing.T) {
	type key struct{}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			f := newFakeSnapd(t)
			e.Values[key{}] = f
			e.Setenv("SNAPCTL_SOCKET", f.socket)
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"answer": func(ts *testscript.TestScript, neg bool, args []string) {
				f := ts.Value(key{}).(*fakeSnapd)
				var l struct {
					Error  *api.Error
					Result json.RawMessage
				}
				if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &l); err != nil {
					ts.Fatalf("%s: %v", args[1], err)
				}
				f.mu.Lock()
				defer f.mu.Unlock()
				if l.Error != nil {
					f.answers[args[0]] = l.Error
				} else {
					f.answers[args[0]] = l.Result
				}
			},
			"asked": func(ts *testscript.TestScript, neg bool, args []string) {
				got := strings.Join(ts.Value(key{}).(*fakeSnapd).asked(), "\n") + "\n"
				if want := ts.ReadFile(args[0]); got != want {
					ts.Fatalf("asked:\n%sexpected:\n%s", got, want)
				}
			},
			"exit": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := "0"
				if err != nil {
					code = strings.TrimPrefix(err.Error(), "exit status ")
				}
				if code != args[0] {
					ts.Fatalf("exit %s, expected %s", code, args[0])
				}
			},
		},
		UpdateScripts: os.Getenv("UPDATE") != "",
	})
}
