package deb

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Resign removes Valid-Until from upstream's Release file and signs the rest,
// with the date of the Release file.
func (Format) Resign(root *repo.Root, signer *sign.Signer) ([]repo.Doc, error) {
	text, err := rewrite(root, func(field string) (string, bool) {
		return "", field == "valid-until" || field == "signed-by"
	})
	if err != nil {
		return nil, err
	}
	return signed(root.Suite, text, root.Date, signer)
}

// Redate replaces the date of a Release file that Derive wrote.
func (f Format) Redate(root *repo.Root, at time.Time, signer *sign.Signer) ([]repo.Doc, error) {
	text, err := rewrite(root, func(field string) (string, bool) { return "Date: " + formatDate(at), field == "date" })
	if err != nil {
		return nil, err
	}
	rel, err := ParseRelease(text)
	if err != nil {
		return nil, err
	}
	if !rel.Date.Equal(at) {
		return nil, fmt.Errorf("Release of suite %s: date %s, expected %s: %w", root.Suite, rel.Date, at, repo.ErrMalformed)
	}
	return signed(root.Suite, text, at, signer)
}

// rewrite returns the text of a Release file. f gets the name of each field in
// lower case; if it returns true, its line replaces the field, or removes it if
// the line is empty.
func rewrite(root *repo.Root, f func(field string) (line string, replace bool)) ([]byte, error) {
	text, err := releaseText(root.Docs)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		switch with, replace := f(string(bytes.ToLower(name))); {
		case !replace:
			out.Write(line)
		case with != "":
			out.WriteString(with + "\n")
		}
	}
	if !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// signed signs a Release file as InRelease and as Release with Release.gpg.
func signed(suite repo.SuiteName, text []byte, at time.Time, signer *sign.Signer) ([]repo.Doc, error) {
	in, err := signer.ClearSign(text, at)
	if err != nil {
		return nil, fmt.Errorf("sign InRelease: %w", err)
	}
	sig, err := signer.SignDetached(text, at)
	if err != nil {
		return nil, fmt.Errorf("sign Release: %w", err)
	}
	dir := suiteDir(suite)
	return []repo.Doc{{Path: dir + "InRelease", Data: in}, {Path: dir + "Release", Data: text}, {Path: dir + "Release.gpg", Data: sig}}, nil
}

// Identity returns the fields whose change makes apt stop (apt-secure(8),
// --allow-releaseinfo-change). A new Suite or Version is not among them, because
// apt only reports it.
func (f Format) Identity(root *repo.Root) ([]repo.Field, error) {
	rel, err := releaseOf(root)
	if err != nil {
		return nil, err
	}
	return []repo.Field{
		{Name: "Origin", Value: rel.Origin}, {Name: "Label", Value: rel.Label}, {Name: "Codename", Value: rel.Codename},
		{Name: "default priority", Value: strconv.Itoa(f.Priority(root))},
	}, nil
}
