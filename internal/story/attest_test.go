package story

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
)

// buildFrom makes an image from a package of a freeze: it downloads the package from the
// server, and unpacks it with dpkg-deb.
func (s *server) buildFrom(freeze, pkg string) string {
	s.t.Helper()
	var list api.PackageList
	s.JSON(&list, "packages", freeze)
	dir := s.t.TempDir()
	for _, p := range list.Packages {
		if p.Name != pkg {
			continue
		}
		status, body := get(s.t, "http://"+s.Addr+"/frozen/"+freeze+"/"+p.Mirror+"/"+p.Path)
		if status != http.StatusOK {
			s.t.Fatalf("%s: status %d", p.Path, status)
		}
		deb, image := filepath.Join(dir, "package.deb"), filepath.Join(dir, "image.tar")
		if err := os.WriteFile(deb, []byte(body), 0o644); err != nil {
			s.t.Fatal(err)
		}
		out, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
		if err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(image, out, 0o644); err != nil {
			s.t.Fatal(err)
		}
		return image
	}
	s.t.Fatalf("%s has no package %s", freeze, pkg)
	return ""
}

// The release manager and a CI build the same image from a freeze, attest it and import
// each other's attestation. A third builder builds a different image. Verification with a
// threshold of two builders succeeds, on each server and with only the export, and reports
// the third as dissenting. Long because each step depends on the one before.
func TestBuildersConfirm(t *testing.T) {
	needs.Programs(t, "dpkg-deb", "openssl")
	release, ci, third := ownServer(t, ""), ownServer(t, ""), ownServer(t, "")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	openssl := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	release.Ctl("add", "own", dpkgDeb(t, "hello_1_amd64.deb", "Package: hello", "Version: 1", "Architecture: amd64"), "--suite", "stable")
	release.Ctl("freeze", "4.1", "--package", "hello")
	image := release.buildFrom("4.1", "hello")
	release.Ctl("image", "add", "4.1", image)
	release.Ctl("export", "4.1", at("export"))
	for _, s := range []*server{ci, third} {
		s.Ctl("import", at("export"))
	}

	// Keys of three builders: one OpenPGP key, and two Ed25519 keys from openssl.
	release.Ctl("key", "generate", "--key-file", at("release.asc"), "--name", "Release manager")
	list := "# Who builds our images.\nbuilder release-manager\n" + release.Ctl("key", "export", "--key-file", at("release.asc"))
	for _, name := range []string{"ci", "third"} {
		openssl("genpkey", "-algorithm", "ed25519", "-out", at(name+".pem"))
		if err := os.Chmod(at(name+".pem"), 0o600); err != nil {
			t.Fatal(err)
		}
		openssl("pkey", "-in", at(name+".pem"), "-pubout", "-out", at(name+".pub"))
		public, err := os.ReadFile(at(name + ".pub"))
		if err != nil {
			t.Fatal(err)
		}
		list += "builder " + name + "\n" + string(public)
	}
	if err := os.WriteFile(at("builders"), []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("other.tar"), []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}

	release.Ctl("attest", "4.1", "--image", image, "--key", at("release.asc"), "--output", at("release.json"))
	var made api.Attested
	ci.JSON(&made, "attest", "4.1", "--image", ci.buildFrom("4.1", "hello"), "--key", at("ci.pem"), "--tool", "dpkg=1.21", "--output", at("ci.json"))
	if !made.New || !made.Equal || made.Tools["dpkg"] != "1.21" {
		t.Errorf("the CI's image: %+v", made)
	}
	if out := third.Ctl("attest", "4.1", "--image", at("other.tar"), "--key", at("third.pem"), "--output", at("third.json")); !strings.Contains(out, "differs from the published") {
		t.Errorf("the third image:\n%s", out)
	}
	two := []string{"--builders", at("builders"), "--threshold", "2"}
	for _, s := range []*server{release, ci, third} {
		s.Refuse(4, append([]string{"verify", "4.1"}, two...), "check failed")
	}

	// Each imports the attestations of the others, from a file or from another server.
	release.Ctl("attest", "import", "http://"+ci.Addr+"/frozen/4.1/"+made.File, at("third.json"))
	ci.Ctl("attest", "import", at("release.json"), at("third.json"))
	third.Ctl("attest", "import", at("release.json"), at("ci.json"), at("ci.json"))
	for _, s := range []*server{release, ci, third} {
		var v api.VerifyResult
		s.JSON(&v, append([]string{"verify", "4.1"}, two...)...)
		im := v.Builders.Images[0]
		if strings.Join(im.Confirm, " ") != "release-manager ci" || len(im.Dissent) != 1 || im.Dissent[0].Builder != "third" || im.Dissent[0].SHA256 != digestOf(t, at("other.tar")) || len(im.Silent) != 0 {
			t.Errorf("%+v", im)
		}
		s.Refuse(4, []string{"verify", "4.1", "--builders", at("builders"), "--threshold", "3"}, "check failed")
		if out := s.Ctl("attest", "list", "4.1", "--builders", at("builders")); !strings.Contains(out, "release-manager") || !strings.Contains(out, "third") {
			t.Errorf("attest list:\n%s", out)
		}
		if out := s.Ctl("show", "4.1"); strings.Count(out, "_statements/attestation-") < 3 {
			t.Errorf("show:\n%s", out)
		}
	}
	if out := release.Ctl("verify", "4.1", "--builders", at("builders"), "--threshold", "2"); !strings.Contains(out, "2 of 3: release-manager ci") || !strings.Contains(out, "builder third built another image") {
		t.Errorf("verify:\n%s", out)
	}
	if out := release.Ctl("log", "export"); strings.Count(out, `"kind":"attestation"`) != 3 {
		t.Errorf("the log does not have three attestations:\n%s", out)
	}
	if status, page := get(t, "http://"+release.Addr+"/freeze/4.1"); status != 200 || !strings.Contains(page, "Attestations") || !strings.Contains(page, ">differs<") {
		t.Errorf("the page of the freeze: %d", status)
	}

	// The export contains all attestations, and they can be verified without a server.
	release.Ctl("export", "4.1", at("attested"))
	release.Ctl(append([]string{"verify", at("attested")}, two...)...)
	fourth := ownServer(t, "")
	fourth.Ctl("import", at("attested"))
	fourth.Ctl(append([]string{"verify", "4.1"}, two...)...)

	// openssl verifies the signature, too.
	var e struct {
		Payload    []byte
		Signatures []struct{ Sig []byte }
	}
	data, err := os.ReadFile(at("ci.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	const typ = "application/vnd.in-toto+json"
	for name, b := range map[string][]byte{"signed": fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(typ), typ, len(e.Payload), e.Payload), "sig": e.Signatures[0].Sig} {
		if err := os.WriteFile(at(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	openssl("pkeyutl", "-verify", "-pubin", "-inkey", at("ci.pub"), "-rawin", "-in", at("signed"), "-sigfile", at("sig"))

	// A kit for an image that too few builders confirm is not advertised.
	udf := func(image, output string) []string {
		return append([]string{"iuk", "udf", "--key-file", at("release.asc"), "--to", "4.1", "--from", "4.0", "--product", "Tails", "--build-target", "amd64", "--channel", "stable",
			"--iuk-url", "http://kits.example.org", "--image-url", "http://images.example.org/4.1.img", "--iuks", dir, "--image", image, "--output", output}, two...)
	}
	release.Ctl(udf(image, at("udf"))...)
	release.Refuse(4, udf(at("other.tar"), at("none")), "too few builders confirm the image: expected 2, found 0")
	if _, err := os.Stat(at("none/v2")); err == nil {
		t.Error("iuk udf wrote a file for an image that too few builders confirm")
	}

	// An attestation of a different freeze with the same name is refused.
	fifth := ownServer(t, "")
	fifth.Ctl("add", "own", dpkgDeb(t, "hello_2_amd64.deb", "Package: hello", "Version: 2", "Architecture: amd64"), "--suite", "stable")
	fifth.Ctl("freeze", "4.1", "--package", "hello")
	fifth.Refuse(4, []string{"attest", "import", at("ci.json")}, "attestation of another freeze")
	third.Refuse(1, []string{"attest", "import", at("builders")}, "malformed attestation")
}
