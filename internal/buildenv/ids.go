package buildenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// maxIDs is how many IDs an environment has: as many as Debian's policy uses.
const maxIDs = 65536

// An idRange maps inside, and those after it, to outside.
type idRange struct{ inside, outside, count int }

// An idMap maps the users and groups of an environment to those outside. Root in the
// environment is the user who runs this program.
type idMap struct {
	users, groups []idRange
	tool          bool // newuidmap and newgidmap write it
}

// findIDs returns the IDs that this user can give to an environment.
func findIDs() (idMap, error) {
	if os.Geteuid() == 0 {
		u, err := ownIDs("/proc/self/uid_map")
		if err != nil {
			return idMap{}, err
		}
		g, err := ownIDs("/proc/self/gid_map")
		if err != nil {
			return idMap{}, err
		}
		return idMap{users: []idRange{{0, 0, u}}, groups: []idRange{{0, 0, g}}}, nil
	}
	u, err := user.Current()
	if err != nil {
		return idMap{}, fmt.Errorf("%w: %w", ErrIDs, err)
	}
	m := idMap{tool: true}
	for _, p := range []struct {
		file string
		own  int
		to   *[]idRange
	}{{"/etc/subuid", os.Getuid(), &m.users}, {"/etc/subgid", os.Getgid(), &m.groups}} {
		first, count, err := subordinate(p.file, u)
		if err != nil {
			return m, err
		}
		*p.to = []idRange{{0, p.own, 1}, {1, first, min(count, maxIDs-1)}}
	}
	for _, name := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(name); err != nil {
			return m, fmt.Errorf("%w: %w", ErrMapTool, err)
		}
	}
	return m, nil
}

// ownIDs returns the number of IDs from 0 that exist here, which is limited in a
// container.
func ownIDs(file string) (int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrIDs, err)
	}
	for line := range strings.Lines(string(data)) {
		var inside, outside, count int
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil && inside == 0 {
			return min(count, maxIDs), nil
		}
	}
	return 0, fmt.Errorf("%w: %s has no entry for 0", ErrIDs, file)
}

// subordinate returns the first range of a user in subuid(5) or subgid(5).
func subordinate(file string, u *user.User) (first, count int, err error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, fmt.Errorf("%w: %s does not exist; expected a line for user %s", ErrIDs, file, u.Username)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrIDs, err)
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		parts := strings.Split(strings.TrimSpace(in.Text()), ":")
		if len(parts) != 3 || parts[0] != u.Username && parts[0] != u.Uid {
			continue
		}
		first, err1 := strconv.Atoi(parts[1])
		count, err2 := strconv.Atoi(parts[2])
		if err1 == nil && err2 == nil && count > 0 {
			return first, count, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: %s has no line for user %s", ErrIDs, file, u.Username)
}

// apply sets the IDs of the user namespace of a process.
func (m idMap) apply(ctx context.Context, pid int) error {
	for _, p := range []struct {
		tool, file string
		list       []idRange
	}{{"newuidmap", "uid_map", m.users}, {"newgidmap", "gid_map", m.groups}} {
		var words []string
		for _, r := range p.list {
			words = append(words, strconv.Itoa(r.inside), strconv.Itoa(r.outside), strconv.Itoa(r.count))
		}
		if !m.tool {
			file := fmt.Sprintf("/proc/%d/%s", pid, p.file)
			if err := os.WriteFile(file, []byte(strings.Join(words, " ")), 0); err != nil {
				return fmt.Errorf("%w: map IDs: %w%s", ErrNamespaces, err, obstacles())
			}
			continue
		}
		out, err := exec.CommandContext(ctx, p.tool, append([]string{strconv.Itoa(pid)}, words...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s: %w: %s", ErrNamespaces, p.tool, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// obstacles names the settings of this machine that forbid namespaces, or returns
// "".
func obstacles() string {
	var found []string
	for _, o := range []struct{ file, name, bad, want string }{
		{"/proc/sys/user/max_user_namespaces", "user.max_user_namespaces", "0", "more"},
		{"/proc/sys/user/max_net_namespaces", "user.max_net_namespaces", "0", "more"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone", "0", "1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
	} {
		if strings.Contains(o.name, "unprivileged") && os.Geteuid() == 0 {
			continue
		}
		if data, err := os.ReadFile(o.file); err == nil && strings.TrimSpace(string(data)) == o.bad {
			found = append(found, fmt.Sprintf("the kernel's setting %s is %s, expected %s", o.name, o.bad, o.want))
		}
	}
	if len(found) == 0 {
		return ""
	}
	return ": " + strings.Join(found, "; ")
}
