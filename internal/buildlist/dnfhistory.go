package buildlist

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// dnfTransaction is a transaction of `dnf history info`.
type dnfTransaction struct {
	id      int
	line    int
	failure string // how it ended, if not well
	items   []dnfItem
}

type dnfItem struct {
	Entry
	gone bool
}

// dnfHistory parses the output of `dnf history info [ID…]`, of dnf 4 and 5: the
// packages that the transactions installed and no later one removed. dnf prints the
// newest transaction first.
func (p *parser) dnfHistory() error {
	var (
		list   []*dnfTransaction
		cur    *dnfTransaction
		inside bool // the list of packages
		count  int
	)
	for {
		line, err := p.nextLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if inside && strings.HasPrefix(line, " ") && strings.TrimSpace(line) != "" {
			item, ok, err := p.dnfItem(line)
			if err != nil {
				return err
			}
			if ok {
				if count++; count > MaxEntries {
					return fmt.Errorf("%s:%d: more than %d packages: %w", p.file, p.line, MaxEntries, ErrTooLarge)
				}
				cur.items = append(cur.items, item)
			}
			continue
		}
		inside = false
		key, value, _ := strings.Cut(line, ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case key == "Transaction ID":
			first, _, _ := strings.Cut(value, "..")
			id, err := strconv.Atoi(first)
			if err != nil {
				return p.malformed(p.line, "the number of a transaction", value)
			}
			cur = &dnfTransaction{id: id, line: p.line}
			list = append(list, cur)
			if len(list) > MaxEntries {
				return fmt.Errorf("%s:%d: more than %d transactions: %w", p.file, p.line, MaxEntries, ErrTooLarge)
			}
		case cur == nil && strings.TrimSpace(line) != "" && !dnfNoise(line):
			return p.malformed(p.line, "Transaction ID : number", line)
		case key == "Return-Code" && value != "Success", key == "Status" && value != "Ok":
			cur.failure = value
		case strings.EqualFold(line, "Packages Altered:") && cur != nil:
			inside = true
		}
	}
	return p.replayDNF(list)
}

// replayDNF applies transactions in their order. Within one, it applies removals first,
// because a reinstalled package is listed both as removed and as installed.
func (p *parser) replayDNF(list []*dnfTransaction) error {
	slices.SortStableFunc(list, func(a, b *dnfTransaction) int { return cmp.Compare(a.id, b.id) })
	r := &replay{p: p}
	for _, t := range list {
		if t.failure != "" {
			p.note(t.line, "transaction %d ended with %q: its packages are listed as it planned them", t.id, clip(t.failure))
		}
		for _, gone := range []bool{true, false} {
			for _, it := range t.items {
				if it.gone != gone {
					continue
				}
				if err := r.set(it.String(), it.Entry, gone); err != nil {
					return err
				}
			}
		}
	}
	return r.finish()
}

// dnfItem parses a row "Action package [reason] [repository]". ok is false for rows
// that neither install nor remove a package.
func (p *parser) dnfItem(line string) (item dnfItem, ok bool, err error) {
	words := strings.Fields(line)
	for i, w := range words {
		e, isPackage := parseNEVRA(w)
		if i == 0 || !isPackage || e.Arch == "" {
			continue
		}
		// dnf writes every epoch that is not 0.
		e.EpochUnknown = false
		e.Line, e.Raw = p.line, clip(strings.Join(words, " "))
		if i < len(words)-1 {
			e.Origin = strings.TrimLeft(words[len(words)-1], "@")
		}
		switch action := strings.ToLower(strings.Join(words[:i], " ")); action {
		case "install", "dep-install", "true-install", "installed", "upgrade", "update", "downgrade", "reinstall", "obsoleting":
			return dnfItem{Entry: e}, true, nil
		case "upgraded", "updated", "downgraded", "reinstalled", "obsoleted", "removed", "remove", "erase", "replaced":
			return dnfItem{Entry: e, gone: true}, true, nil
		case "reason change":
			return item, false, nil
		default:
			return item, false, p.malformed(p.line, "an action of dnf history", action)
		}
	}
	if len(words) > 1 && words[0] == "Action" && words[1] == "Package" {
		return item, false, nil
	}
	return item, false, p.malformed(p.line, "an action and name-[epoch:]version-release.arch", strings.TrimSpace(line))
}
