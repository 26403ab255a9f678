package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"path/filepath"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/regfile"
)

// ErrTruncated means that bytes were lost or changed in transit.
var ErrTruncated = errors.New("bytes were lost or changed on the way")

// Send is like Call, for a verb that takes files, whose bytes it sends after the
// request. progress, if not nil, reports first the bytes sent and then the progress of
// the verb. Unlike Call, Send does not repeat the request if the connection is lost.
func (c *Client) Send(ctx context.Context, verb string, req any, files []string, result any, progress func(Progress)) error {
	return c.send(ctx, verb, req, func(s *sender) error {
		for i, name := range files {
			if err := s.file(name, Progress{Task: filepath.Base(name), Phase: "sending", Files: int64(i), FilesTotal: int64(len(files))}); err != nil {
				return err
			}
		}
		return nil
	}, result, progress)
}

// SendStream is like Send with one file, whose content write writes.
func (c *Client) SendStream(ctx context.Context, verb string, req any, write func(context.Context, io.Writer) error, result any, progress func(Progress)) error {
	return c.send(ctx, verb, req, func(s *sender) error {
		p, err := s.m.CreatePart(partHeader(api.FilePart))
		if err != nil {
			return err
		}
		return write(s.ctx, &counted{p, &Progress{Phase: "sending"}, s.progress})
	}, result, progress)
}

func (c *Client) send(ctx context.Context, verb string, req any, files func(*sender) error, result any, progress func(Progress)) error {
	if progress == nil {
		progress = func(Progress) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	m := multipart.NewWriter(w)
	s := &sender{ctx: ctx, m: m, progress: progress}
	sent := make(chan error, 1)
	go func() {
		err := s.send(req, files)
		w.CloseWithError(err)
		sent <- err
	}()
	resp, err := c.do(ctx, http.MethodPost, verb, http.Header{"Content-Type": {m.FormDataContentType()}}, r)
	var job api.Job
	if err == nil {
		defer resp.Body.Close()
		to := result
		if resp.StatusCode == http.StatusAccepted {
			to = &job
		}
		err = c.result(ctx, resp, to)
	}
	r.CloseWithError(io.ErrClosedPipe) // stop sending, because the server has answered
	if err == nil && job.ID != "" {
		<-sent
		return c.follow(ctx, job.ID, result, progress)
	}
	if serr := <-sent; err != nil && serr != nil && !errors.Is(serr, io.ErrClosedPipe) {
		return serr // the cause of the incomplete request
	}
	return err
}

// sender writes a request with files.
type sender struct {
	ctx      context.Context
	m        *multipart.Writer
	progress func(Progress)
}

func (s *sender) send(req any, files func(*sender) error) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	p, err := s.m.CreatePart(partHeader(api.RequestPart))
	if err != nil {
		return err
	}
	if _, err := p.Write(body); err != nil {
		return err
	}
	if err := files(s); err != nil {
		return err
	}
	return s.m.Close()
}

func partHeader(name string) textproto.MIMEHeader {
	return textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf("form-data; name=%q", name)}}
}

// file sends one file.
func (s *sender) file(name string, at Progress) error {
	f, err := regfile.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	p, err := s.m.CreatePart(partHeader(api.FilePart))
	if err != nil {
		return err
	}
	at.BytesTotal = st.Size()
	// Read one more byte, to detect a file that grows.
	n, err := io.CopyBuffer(&counted{p, &at, s.progress}, io.LimitReader(regfile.WithContext(s.ctx, f), st.Size()+1), make([]byte, 1<<20))
	if err != nil {
		return fmt.Errorf("send %s: %w", name, err)
	}
	if n != st.Size() {
		return fmt.Errorf("send %s: its size changed from %d bytes while it was read", name, st.Size())
	}
	return nil
}

// counted is a writer that reports the number of bytes written.
type counted struct {
	w        io.Writer
	at       *Progress
	progress func(Progress)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.at.Bytes += int64(n)
	c.progress(*c.at)
	return n, err
}

// Receive runs a verb that answers with bytes and copies them to w. It returns
// ErrTruncated unless their SHA-256 is want, in lower-case hex.
func (c *Client) Receive(ctx context.Context, verb string, req any, want string, w io.Writer, progress func(Progress)) error {
	h := sha256.New()
	if err := c.ReceiveStream(ctx, verb, req, io.MultiWriter(w, h), progress); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%w: SHA-256 %s, expected %s", ErrTruncated, got, want)
	}
	return nil
}

// ReceiveStream runs a verb that answers with bytes and copies them to w. After an
// error, w may have only some of them.
func (c *Client) ReceiveStream(ctx context.Context, verb string, req any, w io.Writer, progress func(Progress)) error {
	if progress == nil {
		progress = func(Progress) {}
	}
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodPost, verb, http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := c.problem(resp); err != nil {
		return err
	}
	if resp.Header.Get("Content-Type") != api.BytesType {
		return fmt.Errorf("%s: received a result, expected bytes", verb)
	}
	at := Progress{Task: verb, Phase: "receiving", BytesTotal: max(resp.ContentLength, 0)}
	if _, err := io.CopyBuffer(&counted{w, &at, progress}, regfile.WithContext(ctx, resp.Body), make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("receive the answer of %s: %w", verb, err)
	}
	return nil
}
