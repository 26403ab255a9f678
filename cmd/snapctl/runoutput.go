package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildenv"
)

// lockName is the directory in --output that marks it as in use by a run. It contains
// the outputs, out of reach of other users, until they are complete.
const lockName = ".snapctl-run"

// notEmpty returns the error for a directory of --output that is not empty.
func (j *runJob) notEmpty(dir, found string) error {
	if found == lockName {
		found += ", of a run that goes on or was killed,"
	}
	return j.c.usagef("--output %s: expected a new or empty directory, found %s in it", dir, found)
}

// checkApart returns an error if --output is within --bind or the reverse, because the
// sources would then change while the command reads them.
func (j *runJob) checkApart(shown string) error {
	if j.bind == "" {
		return nil
	}
	output, err := resolve(j.output)
	if err != nil {
		return j.c.usagef("--output %s: expected a new or empty directory: %v", shown, err)
	}
	if within(output, j.bind) {
		return j.c.usagef("--output %s: expected a directory outside of that of --bind, found it in %s", shown, j.bind)
	}
	if within(j.bind, output) {
		return j.c.usagef("--bind %s: expected a directory outside of that of --output, found it in %s", j.c.str("bind"), output)
	}
	return nil
}

// resolve returns an absolute path without symbolic links. Its last parts need not
// exist.
func resolve(p string) (string, error) {
	real, err := filepath.EvalSymlinks(p)
	if !errors.Is(err, os.ErrNotExist) || p == filepath.Dir(p) {
		return real, err
	}
	if real, err = resolve(filepath.Dir(p)); err != nil {
		return "", err
	}
	return filepath.Join(real, filepath.Base(p)), nil
}

// within reports whether a path is dir or below it.
func within(p, dir string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && filepath.IsLocal(rel)
}

// take creates --output if it does not exist, and locks it for this run.
func (j *runJob) take() error {
	var absent []string
	for d := j.output; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, os.ErrNotExist) {
			break
		}
		absent = append(absent, d)
	}
	slices.Reverse(absent)
	for _, d := range absent {
		err := os.Mkdir(d, 0o777)
		if err == nil {
			j.made = append(j.made, d)
		} else if !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	lock := filepath.Join(j.output, lockName)
	if err := os.Mkdir(lock, 0o700); errors.Is(err, os.ErrExist) {
		return j.notEmpty(j.output, lockName)
	} else if err != nil {
		return err
	}
	j.lock = lock
	// Another run may have written here since the directory was found empty.
	entries, err := os.ReadDir(j.output)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockName {
			return j.notEmpty(j.output, e.Name())
		}
	}
	return nil
}

// release removes the lock. After a failure it also removes the files that this run
// wrote to --output and, if they are empty, the directories that it created.
func (j *runJob) release(failed bool) error {
	var remove []string
	if failed {
		remove = j.kept
	}
	if j.lock != "" {
		remove = append(remove, j.lock)
	}
	err := buildenv.Remove(remove...)
	if !failed {
		return err
	}
	for _, d := range slices.Backward(j.made) {
		if os.Remove(d) != nil {
			break // not empty
		}
	}
	return err
}

// keep moves the outputs to --output and writes the record there.
func (j *runJob) keep(rec *buildenv.Record, out *api.RunResult, dir, second string) (string, error) {
	var err error
	if j.kept, err = buildenv.Move(dir, j.output); err != nil {
		return "", err
	}
	if out.Check != nil {
		for _, d := range out.Check.Differences {
			if d.Second == "" || d.Second == buildenv.Directory {
				continue
			}
			top := filepath.Join(j.output, buildenv.SecondName)
			if !slices.Contains(j.kept, top) {
				j.kept = append(j.kept, top)
			}
			to := filepath.Join(top, d.Path)
			if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
				return "", err
			}
			if err := os.Rename(filepath.Join(second, d.Path), to); err != nil {
				return "", err
			}
		}
	}
	text, err := rec.Statement()
	if err != nil {
		return "", err
	}
	file := filepath.Join(j.output, buildenv.RecordName)
	if err := j.write(file, text); err != nil {
		return "", err
	}
	if j.signer != nil {
		sig, err := j.signer.SignDetached(text, j.src.epoch)
		if err != nil {
			return "", err
		}
		if err := j.write(file+".asc", sig); err != nil {
			return "", err
		}
	}
	return file, nil
}

// write writes a new file in --output.
func (j *runJob) write(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	j.kept = append(j.kept, name)
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
