package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/lazyregexp"
)

// Formats are the formats in which an image can be packed, the default first.
var Formats = []string{"squashfs", "tar", "oci"}

// packings are the names of the packings in descriptions of images, by format.
var packings = map[string]string{"squashfs": Packing, "tar": "tar pax", "oci": "oci tar"}

// formatOf returns the format of a packing, or "".
func formatOf(packing string) string {
	for f, p := range packings {
		if p == packing {
			return f
		}
	}
	return ""
}

// ImageName is the name of the image among those of its freeze: the variant, followed
// by the format unless that is SquashFS.
func (s *Spec) ImageName() string {
	if s.Format == Formats[0] {
		return s.Variant
	}
	return s.Variant + "-" + s.Format
}

// tarPacker writes the root file system as a tar archive whose bytes depend only on its
// files: in the order of the stream, which mmdebstrap sorts by name, with numeric
// owners, times in seconds up to the epoch, and the extended attributes that SquashFS
// supports.
type tarPacker struct {
	ctx       context.Context
	out       *tar.Writer
	epoch     time.Time
	progress  func(done int64)
	done      int64 // bytes of file contents
	installed bool  // dpkg's status file is not empty
}

// copy rewrites a tar stream, and reads it to its end.
func (p *tarPacker) copy(stream io.Reader) error {
	for in := tar.NewReader(stream); ; {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar stream: %w", err)
		}
		n, err := p.header(h)
		if err != nil {
			return err
		}
		if err := p.out.WriteHeader(n); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		written, err := io.Copy(p.out, in)
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		if p.done += written; p.progress != nil {
			p.progress(p.done)
		}
		if n.Name == "var/lib/dpkg/status" && written > 0 {
			p.installed = true
		}
	}
	if err := p.out.Close(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, stream) // padding behind the archive
	return err
}

// header returns the header of an entry without fields that depend on the machine.
func (p *tarPacker) header(h *tar.Header) (*tar.Header, error) {
	n := &tar.Header{
		Typeflag: h.Typeflag, Name: belowRoot(h.Name), Linkname: h.Linkname, Size: h.Size, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
		ModTime: time.Unix(min(h.ModTime.Unix(), p.epoch.Unix()), 0).UTC(), Format: tar.FormatPAX,
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeFifo:
	case tar.TypeLink:
		n.Linkname = belowRoot(h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		n.Devmajor, n.Devminor = h.Devmajor, h.Devminor
	default:
		return nil, fmt.Errorf("%s: tar entry of type %q", n.Name, h.Typeflag)
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && keptXattr(name) {
			if n.PAXRecords == nil {
				n.PAXRecords = map[string]string{}
			}
			n.PAXRecords[k] = v
		}
	}
	return n, nil
}

// keptXattr reports whether SquashFS supports an extended attribute.
func keptXattr(name string) bool {
	prefix, _, _ := strings.Cut(name, ".")
	return prefix == "user" || prefix == "trusted" || prefix == "security"
}

// belowRoot removes "./" before a name, except for the root itself.
func belowRoot(name string) string {
	if s := strings.TrimPrefix(name, "./"); s != "" {
		return s
	}
	return name
}

// packTar packs the tar stream of mmdebstrap as a tar archive.
func packTar(ctx context.Context, w io.Writer, stream io.Reader, s *Spec, o Options) error {
	buf := bufio.NewWriterSize(w, 1<<20)
	p := tarPacker{ctx: ctx, out: tar.NewWriter(buf), epoch: s.Epoch, progress: o.Progress}
	if err := p.copy(stream); err != nil {
		return err
	}
	if !p.installed && !s.mayBeEmpty() {
		return errNothingInstalled
	}
	return buf.Flush()
}

// packOCI packs the tar stream of mmdebstrap as an image of the Open Container
// Initiative: a tar archive of an image layout (image-layout.md of its image format
// specification 1.0) with one uncompressed layer, so that its bytes do not depend on a
// compressor.
func packOCI(ctx context.Context, w io.Writer, stream io.Reader, s *Spec, o Options) error {
	layer, err := os.CreateTemp(o.TempDir, "snapctl-layer-")
	if err != nil {
		return err
	}
	defer layer.Close()
	if err := os.Remove(layer.Name()); err != nil {
		return err
	}
	h := sha256.New()
	if err := packTar(ctx, io.MultiWriter(layer, h), stream, s, o); err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	digest := "sha256:" + sum
	var config, manifest, index bytes.Buffer
	for _, c := range []struct {
		to  *bytes.Buffer
		doc func() any
	}{
		{&config, func() any { return s.ociConfig(digest) }},
		{&manifest, func() any {
			return ociManifest{SchemaVersion: 2, MediaType: ociManifestType, Config: described(ociConfigType, config.Bytes()), Layers: []ociDescriptor{{MediaType: ociLayerType, Digest: digest, Size: size}}}
		}},
		{&index, func() any {
			d := described(ociManifestType, manifest.Bytes())
			d.Platform = s.ociPlatform()
			if ociReference().MatchString(s.Freeze) {
				d.Annotations = map[string]string{"org.opencontainers.image.ref.name": s.Freeze}
			}
			return ociIndex{SchemaVersion: 2, MediaType: ociIndexType, Manifests: []ociDescriptor{d}}
		}},
	} {
		e := json.NewEncoder(c.to)
		e.SetEscapeHTML(false)
		if err := e.Encode(c.doc()); err != nil {
			return err
		}
		c.to.Truncate(c.to.Len() - 1) // the newline
	}
	out := layout{tar.NewWriter(w), s.Epoch}
	whole := readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return layer.Read(p)
	})
	for _, f := range []struct {
		name string
		size int64
		data io.Reader
	}{
		{"blobs/", 0, nil},
		{"blobs/sha256/", 0, nil},
		{"blobs/sha256/" + cas.Sum(config.Bytes()).String(), int64(config.Len()), &config},
		{"blobs/sha256/" + cas.Sum(manifest.Bytes()).String(), int64(manifest.Len()), &manifest},
		{"blobs/sha256/" + sum, size, whole},
		{"index.json", int64(index.Len()), &index},
		{"oci-layout", int64(len(ociLayout)), strings.NewReader(ociLayout)},
	} {
		if err := out.add(f.name, f.size, f.data); err != nil {
			return err
		}
	}
	return out.Close()
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// layout writes the archive of an image layout.
type layout struct {
	*tar.Writer
	epoch time.Time
}

// add writes a file, or a directory if its name ends with a slash.
func (l *layout) add(name string, size int64, data io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: l.epoch.Truncate(time.Second), Format: tar.FormatPAX}
	if data == nil {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	}
	if err := l.WriteHeader(h); err != nil || data == nil {
		return err
	}
	_, err := io.Copy(l, data)
	return err
}

// The documents of an OCI image, with the fields that are written here.
const (
	ociConfigType   = "application/vnd.oci.image.config.v1+json"
	ociManifestType = "application/vnd.oci.image.manifest.v1+json"
	ociIndexType    = "application/vnd.oci.image.index.v1+json"
	ociLayerType    = "application/vnd.oci.image.layer.v1.tar"
	ociLayout       = `{"imageLayoutVersion":"1.0.0"}`
)

type ociDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *ociPlatform      `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type ociPlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

// ociReference matches the names that podman and docker accept as a reference: in lower
// case, without "~" and "+".
var ociReference = lazyregexp.New(`^[a-z0-9]+([._-][a-z0-9]+)*$`)

type ociIndex struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Manifests     []ociDescriptor `json:"manifests"`
}

type ociManifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Config        ociDescriptor   `json:"config"`
	Layers        []ociDescriptor `json:"layers"`
}

type ociConfig struct {
	Created time.Time `json:"created"`
	*ociPlatform
	Config struct {
		Env []string `json:"Env"`
		Cmd []string `json:"Cmd"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []ociHistory `json:"history"`
}

type ociHistory struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// ociConfig returns the configuration of an image with one layer.
func (s *Spec) ociConfig(layer string) ociConfig {
	created := s.Epoch.UTC().Truncate(time.Second)
	c := ociConfig{Created: created, ociPlatform: s.ociPlatform()}
	c.Config.Env = []string{"PATH=" + toolPath}
	c.Config.Cmd = []string{"/bin/sh"}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{layer}
	c.History = []ociHistory{{created, "snapctl image build"}}
	return c
}

// ociPlatform returns the architecture as Go names it, which OCI images use.
func (s *Spec) ociPlatform() *ociPlatform {
	p := &ociPlatform{Architecture: s.Architecture, OS: "linux"}
	switch s.Architecture {
	case "i386":
		p.Architecture = "386"
	case "armel":
		p.Architecture, p.Variant = "arm", "v5"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "ppc64el":
		p.Architecture = "ppc64le"
	case "mipsel":
		p.Architecture = "mipsle"
	case "mips64el":
		p.Architecture = "mips64le"
	}
	return p
}

func described(mediaType string, doc []byte) ociDescriptor {
	return ociDescriptor{MediaType: mediaType, Digest: "sha256:" + cas.Sum(doc).String(), Size: int64(len(doc))}
}
