package buildenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings are the properties of the environment, other than their inputs, that builds
// can depend on.
type Settings struct {
	Env      map[string]string // the whole environment
	Umask    int
	HostName string
	User     string // name of user 0
	Home     string
	Dir      string // the working directory; BuildDir leads to it
	CPUs     int    // how many the command may use
	Random   bool   // addresses are random, as they usually are
	Reverse  bool   // directories list their entries in reverse order
	Clock    int64  // the time that the command sees, in Unix seconds; 0: the real one
}

// searchPath is the PATH of the command.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// NewSettings returns the settings of the first run. epoch is SOURCE_DATE_EPOCH, and
// jobs the number of CPUs.
func NewSettings(epoch time.Time, jobs int, clock bool) Settings {
	s := Settings{
		Umask: 0o022, HostName: "localhost", User: "root", Home: "/root", Dir: BuildDir, CPUs: jobs,
		Env: map[string]string{
			"SOURCE_DATE_EPOCH": strconv.FormatInt(epoch.Unix(), 10),
			"TZ":                "UTC", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "PATH": searchPath,
			"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh", "TERM": "dumb",
			"DEBIAN_FRONTEND": "noninteractive", "DEB_BUILD_OPTIONS": parallel(jobs), "RPM_BUILD_NCPUS": strconv.Itoa(jobs),
		},
	}
	if clock {
		s.Clock = epoch.Unix()
	}
	return s
}

func parallel(n int) string { return "parallel=" + strconv.Itoa(n) }

// A Variation is a setting that differs in the second run of a check.
type Variation struct{ What, First, Second string }

// Machine describes the properties of the machine and the root that limit variations.
type Machine struct {
	CPUs    int
	Forward error // the error of DirectoryOrder, if directories cannot be reordered
	Locales bool  // the root has other locales
}

// DirectoryOrder returns an error if this machine cannot list directories in another
// order, for which it needs disorderfs, a FUSE file system.
func DirectoryOrder() error {
	if _, err := exec.LookPath("disorderfs"); err != nil {
		return errors.New("disorderfs is not installed on this machine")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("disorderfs needs FUSE: %w", err)
	}
	return f.Close()
}

// Vary returns settings that differ from s as far as the machine allows, the
// differences, and the settings that could not be varied, with the reasons.
func (s Settings) Vary(m Machine) (Settings, []Variation, []string) {
	v := s
	v.Env = map[string]string{}
	for k, value := range s.Env {
		v.Env[k] = value
	}
	v.Umask, v.HostName, v.User, v.Home = 0o002, "other-host", "other", "/home/other"
	v.Dir, v.Random = "/other/path/of/the/build", true
	v.Env["TZ"] = "GMT-14"
	v.Env["LC_ALL"], v.Env["LANG"], v.Env["LANGUAGE"] = "C", "C", "et_EE:et"
	if m.Locales {
		v.Env["LC_ALL"], v.Env["LANG"] = "et_EE.UTF-8", "et_EE.UTF-8"
	}
	v.Env["PATH"] += ":/other/path"
	v.Env["HOME"], v.Env["USER"], v.Env["LOGNAME"] = v.Home, v.User, v.User
	v.Env["OTHER_VARIABLE"] = "other value"
	list := []Variation{
		{"time zone", s.Env["TZ"], v.Env["TZ"]},
		{"locale", s.Env["LC_ALL"], v.Env["LC_ALL"]},
		{"umask", fmt.Sprintf("%04o", s.Umask), fmt.Sprintf("%04o", v.Umask)},
		{"host name", s.HostName, v.HostName},
		{"user name", s.User, v.User},
		{"home directory", s.Home, v.Home},
		{"build path", s.Dir, v.Dir},
		{"search path", s.Env["PATH"], v.Env["PATH"]},
		{"environment", "", "OTHER_VARIABLE"},
		{"memory addresses", "fixed", "random"},
	}
	var same []string
	if m.CPUs > s.CPUs {
		v.CPUs = s.CPUs + 1
	} else if s.CPUs > 1 {
		v.CPUs = s.CPUs - 1
	} else {
		same = append(same, "CPUs: this machine has only one")
	}
	if v.CPUs != s.CPUs {
		v.Env["DEB_BUILD_OPTIONS"], v.Env["RPM_BUILD_NCPUS"] = parallel(v.CPUs), strconv.Itoa(v.CPUs)
		list = append(list, Variation{"CPUs", strconv.Itoa(s.CPUs), strconv.Itoa(v.CPUs)})
	}
	if v.Reverse = m.Forward == nil; v.Reverse {
		list = append(list, Variation{"order of directories", "of the file system", "reverse"})
	} else {
		same = append(same, "order of directories: "+m.Forward.Error())
	}
	if s.Clock != 0 {
		v.Clock = s.Clock + 400*24*60*60
		list = append(list, Variation{"clock", clockText(s.Clock), clockText(v.Clock)})
	}
	return v, list, same
}

func clockText(t int64) string { return time.Unix(t, 0).UTC().Format(time.RFC3339) }

// environ returns the environment of the command, sorted. faketime is the library
// that Clock needs.
func (s Settings) environ(faketime string) []string {
	var out []string
	for k, v := range s.Env {
		out = append(out, k+"="+v)
	}
	if s.Clock != 0 {
		out = append(out,
			"LD_PRELOAD="+faketime, "FAKETIME="+strconv.FormatInt(s.Clock, 10), "FAKETIME_FMT=%s",
			// Waiting must still work, and signatures may be newer than the freeze.
			"FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_SKIP_CMDS=gpgv,gpgv-sq,sqv,apt-get,apt")
	}
	slices.Sort(out)
	return out
}

// passwd returns /etc/passwd with another name and home for user 0. The entry of root
// remains, after the new one.
func (s Settings) passwd(text string) string {
	if s.User == "root" {
		return text
	}
	return fmt.Sprintf("%s:x:0:0:%s:%s:/bin/sh\n", s.User, s.User, s.Home) + text
}

// files returns the files that the environment replaces, by path.
func (s Settings) files(sources string) map[string]string {
	return map[string]string{
		"etc/hostname":                         s.HostName + "\n",
		"etc/hosts":                            strings.TrimSpace("127.0.0.1 localhost "+strings.TrimPrefix(s.HostName, "localhost")) + "\n",
		"etc/resolv.conf":                      "",
		"etc/apt/sources.list":                 "",
		"etc/apt/sources.list.d/snapd.sources": sources,
	}
}

// dirs returns the directories that the environment needs.
func (s Settings) dirs() []string {
	return []string{"proc", "dev", "tmp", "run", SourceDir[1:], OutputDir[1:], strings.TrimPrefix(s.Home, "/"), path.Clean(s.Dir)[1:]}
}
