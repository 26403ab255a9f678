package iuk

import (
	"context"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/squashfs"
)

// output is one difference that is being written.
type output struct {
	s    *oldState
	p    *placement
	w    *squashfs.Writer
	next int // index of the next pack
}

// write writes the difference to olds[i] to ws[i], for each i.
func (d *differ) write(ctx context.Context, ws []io.WriterAt) error {
	sb := d.new.Superblock()
	outs := make([]*output, len(d.olds))
	var codec squashfs.Codec
	for i, s := range d.olds {
		w, err := squashfs.NewWriter(ws[i], squashfs.WriterOptions{
			Compressor:        sb.Compressor,
			BlockSize:         int(sb.BlockSize),
			CompressorOptions: d.new.CompressorOptions(),
			ModTime:           uint32(d.o.Epoch.Unix()),
			Exportable:        sb.Flags&squashfs.FlagExportable != 0,
			Flags:             squashfs.FlagDuplicates,
			Workers:           d.encoders(),
			Codec:             codec,
		})
		if err != nil {
			return fmt.Errorf("write difference: %w", err)
		}
		codec = w.Codec()
		outs[i] = &output{s: s, w: w}
	}
	err := d.each(ctx, outs, func(ctx context.Context, o *output) error {
		var err error
		if o.p, err = d.place(ctx, o.s); err != nil {
			return fmt.Errorf("plan difference: %w", err)
		}
		return d.copyData(ctx, o)
	})
	if err == nil {
		err = d.writePacks(ctx, outs)
	}
	if err == nil {
		err = d.each(ctx, outs, d.writeTree)
	}
	if err != nil {
		return fmt.Errorf("write difference: %w", err)
	}
	return nil
}

// each calls fn for each difference concurrently.
func (d *differ) each(ctx context.Context, outs []*output, fn func(context.Context, *output) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.o.Workers)
	for _, o := range outs {
		g.Go(func() error { return fn(ctx, o) })
	}
	return g.Wait()
}

// packJob is a fragment block for one or more differences.
type packJob struct {
	tails []squashfs.Tail
	users []*output
	in    []byte
	out   []byte
	buf   []byte // the memory of out
	frag  []byte // memory for a decoded fragment block of the new image
}

func newPackJob(blockSize int) *packJob {
	return &packJob{
		in:   make([]byte, 0, blockSize),
		buf:  make([]byte, 0, blockSize+blockSize/8+1024),
		frag: make([]byte, blockSize),
	}
}

// copyData copies data blocks and whole fragment blocks.
func (d *differ) copyData(ctx context.Context, o *output) error {
	s, p, w := o.s, o.p, o.w
	buf := make([]byte, max(1<<20, d.new.BlockSize()))
	var total int64
	for _, e := range p.extents {
		total += int64(e.end - e.start)
	}
	d.progress.add(0, total+int64(len(p.copied)+len(p.packs)))
	for i := range p.extents {
		e := &p.extents[i]
		e.out = w.Pos()
		for at := e.start; at < e.end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(e.end-at, uint64(len(buf)))
			if err := d.new.ReadData(buf[:n], at); err != nil {
				return err
			}
			if _, err := w.Append(buf[:n]); err != nil {
				return err
			}
			at += n
			d.progress.add(int64(n), 0)
		}
	}
	s.stats.CopiedBytes = total
	for _, frag := range p.copied {
		b, err := d.new.Fragment(frag)
		if err != nil {
			return err
		}
		raw, err := d.new.ReadRaw(b, buf)
		if err != nil {
			return err
		}
		at, err := w.Append(raw)
		if err != nil {
			return err
		}
		w.AddFragment(squashfs.Block{Start: at, Size: b.Size})
		s.stats.CopiedBytes += int64(len(raw))
		s.stats.CopiedFragments++
		d.progress.add(1, 0)
	}
	return nil
}

// tailsOf returns the tails of a pack.
func (o *output) tailsOf(pk pack) []squashfs.Tail {
	var out []squashfs.Tail
	for _, r := range pk.runs {
		out = append(out, o.p.tails[r.from:r.to]...)
	}
	return out
}

// nextPack returns the first of the next packs by the order of tails, and all outputs
// whose next pack it is, so that it is decoded and compressed once.
func nextPack(outs []*output) (tails []squashfs.Tail, users []*output) {
	for _, o := range outs {
		if o.next == len(o.p.packs) {
			continue
		}
		t := o.tailsOf(o.p.packs[o.next])
		c := -1
		if users != nil {
			c = slices.CompareFunc(t, tails, compareTails)
		}
		if c < 0 {
			tails, users = t, []*output{o}
		} else if c == 0 {
			users = append(users, o)
		}
	}
	for _, o := range users {
		o.next++
	}
	return tails, users
}

// writePacks makes the new fragment blocks of all differences.
func (d *differ) writePacks(ctx context.Context, outs []*output) error {
	pool := make(chan *packJob, d.o.Workers+2)
	codec := outs[0].w.Codec()
	return squashfs.Ordered(ctx, d.encoders(), d.encoders(),
		func(ctx context.Context, emit func(*packJob) error) error {
			for {
				tails, users := nextPack(outs)
				if users == nil {
					return nil
				}
				var j *packJob
				select {
				case j = <-pool:
				default:
					j = newPackJob(d.new.BlockSize())
				}
				j.tails, j.users = tails, users
				if err := emit(j); err != nil {
					return err
				}
			}
		},
		func(j *packJob) error {
			if err := j.gather(d.new, d.kept); err != nil {
				return err
			}
			var err error
			j.out, err = codec.Encode(j.buf, j.in)
			return err
		},
		func(j *packJob) error {
			data, word := j.out, uint32(0)
			if data == nil {
				data, word = j.in, squashfs.StoredWord(0)
			}
			word |= uint32(len(data))
			for _, o := range j.users {
				at, err := o.w.Append(data)
				if err != nil {
					return err
				}
				o.w.AddFragment(squashfs.Block{Start: at, Size: word})
				o.s.stats.PackedFragments++
				o.s.stats.PackedBytes += int64(len(j.in))
				d.progress.add(1, 0)
			}
			select {
			case pool <- j:
			default:
			}
			return nil
		})
}

// gather collects the tails of a pack in in. Bytes that they share are stored once.
// Blocks whose tails were all kept are not decoded again.
func (j *packJob) gather(r *squashfs.Reader, kept *keptTails) error {
	j.in = j.in[:0]
	for tails := j.tails; len(tails) > 0; {
		n := 1
		for n < len(tails) && tails[n].Fragment == tails[0].Fragment {
			n++
		}
		contents := kept.all(tails[:n])
		if contents == nil {
			data, err := decodeFragment(r, tails[0].Fragment, j.frag)
			if err != nil {
				return err
			}
			contents = make([][]byte, n)
			for i, t := range tails[:n] {
				if contents[i], err = cutTail(data, t); err != nil {
					return err
				}
			}
		}
		end := uint32(0)
		for i, t := range tails[:n] {
			if e := t.Offset + t.Size; e > end {
				j.in = append(j.in, contents[i][max(end, t.Offset)-t.Offset:]...)
				end = e
			}
		}
		tails = tails[n:]
	}
	return nil
}

// encoders is the number of blocks that are compressed at once. An encoder needs about
// 45 MB with xz and blocks of 1 MiB, and 35 MB with zstd.
func (d *differ) encoders() int {
	if len(d.olds) > 2 && d.new.Superblock().Compressor == squashfs.Zstd {
		return 1
	}
	return min(d.o.Workers, 2)
}
