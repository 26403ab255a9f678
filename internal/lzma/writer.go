package lzma

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Writer compresses a stream of any length into one .xz stream of independent
// blocks. Where blocks end depends on [Options.BlockSize] only, so neither the
// sizes of the writes nor the number of workers change the bytes. Block headers
// tell their sizes: decoders may work in parallel, too.
type Writer struct {
	w    io.Writer
	o    Options
	buf  []byte // the block that is being filled
	jobs []*job // under way, oldest first
	free []*job

	index   []byte
	records uint64
	err     error
}

// job is one block on its way.
type job struct {
	e    Encoder
	src  []byte
	out  []byte
	res  blockResult
	err  error
	done chan struct{}
}

var errClosed = errors.New("xz writer is closed")

// NewXZWriter starts a stream on w.
func NewXZWriter(w io.Writer, o Options) (*Writer, error) {
	if _, _, err := o.check(); err != nil {
		return nil, err
	}
	if o.BlockSize == 0 {
		o.BlockSize = defaultDict
	}
	if o.BlockSize < minDict || o.BlockSize > MaxBlock {
		return nil, fmt.Errorf("block size: expected %d to %d bytes, found %d: %w", minDict, MaxBlock, o.BlockSize, ErrOptions)
	}
	if o.Workers < 0 {
		return nil, fmt.Errorf("workers: expected a positive number, found %d: %w", o.Workers, ErrOptions)
	}
	o.Workers = max(o.Workers, 1)
	if _, err := w.Write(streamHeader); err != nil {
		return nil, err
	}
	return &Writer{w: w, o: o}, nil
}

// Write compresses p. Errors of the writer below may come with a later call.
func (z *Writer) Write(p []byte) (int, error) {
	if z.err != nil {
		return 0, z.err
	}
	n := 0
	for len(p) > 0 {
		if z.buf == nil {
			z.buf = make([]byte, 0, z.o.BlockSize)
		}
		k := min(len(p), z.o.BlockSize-len(z.buf))
		z.buf = append(z.buf, p[:k]...)
		p = p[k:]
		n += k
		if len(z.buf) == z.o.BlockSize {
			if z.err = z.start(); z.err != nil {
				return n, z.err
			}
		}
	}
	return n, nil
}

// start hands the full block to a worker, after waiting for one.
func (z *Writer) start() error {
	if len(z.jobs) == z.o.Workers {
		if err := z.collect(); err != nil {
			return err
		}
	}
	var j *job
	if k := len(z.free); k > 0 {
		j, z.free = z.free[k-1], z.free[:k-1]
	} else {
		j = new(job)
	}
	j.src, z.buf = z.buf, j.src[:0:cap(j.src)]
	j.done = make(chan struct{})
	z.jobs = append(z.jobs, j)
	go func() {
		defer close(j.done)
		j.res, j.err = j.e.block(j.out[:0], j.src, z.o, true)
		j.out = j.res.dst
	}()
	return nil
}

// collect waits for the oldest block and writes it.
func (z *Writer) collect() error {
	j := z.jobs[0]
	z.jobs = append(z.jobs[:0], z.jobs[1:]...)
	<-j.done
	if j.err != nil {
		return j.err
	}
	if _, err := z.w.Write(j.out); err != nil {
		return err
	}
	z.index = binary.AppendUvarint(z.index, j.res.unpadded)
	z.index = binary.AppendUvarint(z.index, uint64(len(j.src)))
	z.records++
	z.free = append(z.free, j)
	return nil
}

// Close writes what is left, the index and the footer. It must be called, after
// an error, too: it waits for the workers. It does not close the writer below.
func (z *Writer) Close() error {
	err := z.err
	if err == nil && len(z.buf) > 0 {
		err = z.start()
	}
	for len(z.jobs) > 0 {
		if err == nil {
			err = z.collect()
			continue
		}
		<-z.jobs[0].done
		z.jobs = z.jobs[1:]
	}
	z.buf, z.free = nil, nil
	if z.err = errClosed; err != nil {
		return err
	}
	_, err = z.w.Write(appendIndex(nil, z.index, z.records))
	return err
}
