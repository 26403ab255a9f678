package httpd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// takeFiles runs a verb on a request with files. It answers after the whole request was
// read, because many clients read no answer before that.
func (x *exchange) takeFiles() {
	limit := int64(1) << 62
	if x.a.remote {
		limit = int64(x.a.s.cfg.Conf.API.MaxUpload)
	}
	body := x.reader(limit)
	var touch *control.Touch
	res, err := x.a.s.call(meta.Current(x.r.Context()), x.name, func(ctx context.Context) (any, error) {
		parts, err := x.parts(body)
		if err != nil {
			return nil, err
		}
		p, err := nextPart(parts, api.RequestPart)
		if err != nil {
			return nil, fmt.Errorf("%w: request: %w", errclass.Usage, err)
		}
		head, err := io.ReadAll(io.LimitReader(p, x.limit()+1))
		if err != nil {
			return nil, fmt.Errorf("%w: request: %w", errclass.Usage, err)
		}
		if int64(len(head)) > x.limit() {
			return nil, fmt.Errorf("request: %w: expected at most %d bytes without its files", control.ErrBody, x.limit())
		}
		req, err := x.rt.decode(head)
		if err != nil {
			return nil, err
		}
		if touch, err = x.touches(req); err != nil {
			return nil, err
		}
		return x.rt.take(ctx, req, func() (io.Reader, error) { return nextPart(parts, api.FilePart) })
	})
	// Read the rest of the request: the client reads the answer only after it has sent
	// everything.
	_, _ = io.Copy(io.Discard, body)
	if r, ok := res.(*control.Received); ok && err == nil {
		x.received(r, touch)
		return
	}
	x.audit(touch, err)
	x.reply(res, err)
}

// received starts the job of a request whose files have arrived.
func (x *exchange) received(r *control.Received, touch *control.Touch) {
	s, by, name := x.a.s, x.by, x.name
	job, _, err := s.jobs.Start(control.JobSpec{
		By: by, Verb: name, What: touch.What, Request: r.ID,
		Run: func(ctx context.Context, report func(api.Progress)) (any, error) {
			defer r.Discard()
			res, err := s.call(meta.Current(control.WithCaller(ctx, by.Who)), name, func(ctx context.Context) (any, error) {
				return control.Counted(ctx, touch.What, report, func(p *acquire.Progress) (any, error) { return r.Run(ctx, p) })
			})
			if r, ok := res.(*api.TransferResult); ok && err == nil {
				touch.What = r.Name // known only from the content
			}
			s.control.Audited(ctx, by, name, touch, err)
			return res, err
		},
		Error: func(err error) *api.Error { return s.control.Error(name, err) },
	})
	if err != nil {
		r.Discard()
		x.audit(touch, err)
		x.fail(err)
		return
	}
	x.accepted(job, false)
}

// parts reads the parts of a request from its body.
func (x *exchange) parts(body io.Reader) (*multipart.Reader, error) {
	x.r.Body = io.NopCloser(body)
	parts, err := x.r.MultipartReader()
	if err != nil {
		return nil, fmt.Errorf("%w: request: %w", errclass.Usage, err)
	}
	return parts, nil
}

// nextPart returns the next part of a request, or io.ErrUnexpectedEOF after the last one.
func nextPart(parts *multipart.Reader, name string) (*multipart.Part, error) {
	p, err := parts.NextRawPart()
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if p.FormName() != name {
		return nil, fmt.Errorf("%w: part %q, expected %q", errclass.Usage, p.FormName(), name)
	}
	return p, nil
}

// slowly writes a body to a client, and disconnects a client that accepts nothing for
// stallTime.
type slowly struct{ x *exchange }

func (s slowly) Write(p []byte) (int, error) {
	writeSoon(s.x.rc, len(p))
	return s.x.w.Write(p)
}

// sent answers a request with bytes. It sends the status line before the first byte.
type sent struct {
	x     *exchange
	begun bool
}

// Size implements control.Bytes.
func (s *sent) Size(n int64) { s.x.w.Header().Set("Content-Length", strconv.FormatInt(n, 10)) }

func (s *sent) Write(p []byte) (int, error) {
	if !s.begun {
		s.x.w.Header().Set("Content-Type", api.BytesType)
		s.begun = true
	}
	return slowly{s.x}.Write(p)
}

// sendBytes answers with bytes, which the client can verify.
func (x *exchange) sendBytes(req any) {
	to := &sent{x: x}
	_, err := x.a.s.call(x.r.Context(), x.name, func(ctx context.Context) (any, error) { return nil, x.rt.send(ctx, req, to) })
	switch {
	case err != nil && to.begun:
		x.a.s.log.Warn("an answer was cut off", "verb", x.name, "err", err)
		panic(http.ErrAbortHandler)
	case err != nil:
		x.w.Header().Del("Content-Length")
		x.fail(err)
	case !to.begun:
		_, _ = to.Write(nil)
	}
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// packages streams a result in the form of api.PackageList while it is read. If reading
// fails after the start, the JSON stays incomplete and a trailer contains the error.
func (x *exchange) packages(p *control.PackageStream) {
	x.w.Header().Set("Content-Type", "application/json")
	out := &counter{w: slowly{x}}
	w := bufio.NewWriterSize(out, 64<<10)
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	put := func(before string, v any) error {
		w.WriteString(before)
		buf.Reset()
		if err := enc.Encode(v); err != nil {
			return err
		}
		_, err := w.Write(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
		return err
	}
	err := put(`{"ref":`, p.Ref)
	sep := `,"packages":[`
	if err == nil {
		err = p.Each(x.r.Context(), func(pk api.Package) error {
			before := sep
			sep = ","
			return put(before, pk)
		})
	}
	if err != nil && out.n == 0 {
		x.fail(err)
		return
	}
	if err != nil {
		problem, merr := json.Marshal(x.a.s.control.Error(x.name, err).Problem())
		if merr != nil {
			panic(http.ErrAbortHandler)
		}
		x.w.Header().Set(http.TrailerPrefix+api.ProblemTrailer, string(problem))
		_ = w.Flush()
		return
	}
	if sep != "," {
		w.WriteString(sep)
	}
	w.WriteString("]}\n")
	_ = w.Flush()
}
