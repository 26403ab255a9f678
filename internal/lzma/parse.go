package lzma

import "slices"

// literal, as the back of a symbol, means a literal byte. Otherwise back is 0 to 3
// for one of the last distances, or d+4 for the distance d+1.
const literal = ^uint32(0)

// symbol is one step of the decoder: a literal, a match or a repeat.
type symbol struct {
	back, len uint32
}

// maxNodes is how many bytes the parser looks ahead.
const maxNodes = 4096

// How a node was reached from node.from.
const (
	byOne     = iota // sym
	byLitRep         // a literal, then sym, a repeat of the last distance
	byRepTail        // first, a literal, then sym, a repeat of the same distance
)

// node is the cheapest known encoding of the bytes before it.
type node struct {
	from  int32
	how   uint8
	state uint8     // set by visit
	reps  [4]uint32 // set by visit
	sym   symbol
	first symbol
}

// parser finds a cheap sequence of symbols by dynamic programming over prices.
// From each position that it reaches, it tries a literal, each of the last distances,
// and each match with each length. After a repeat or match it also tries a literal
// followed by the same distance, because data often differs from earlier data in
// only one byte.
type parser struct {
	model
	finder
	price   [maxNodes + maxMatch]uint32
	nodes   [maxNodes + maxMatch]node
	found   []match  // the matches at the finder's position
	seen    bool     // found is valid for the start of the next plan
	symbols []symbol // the plan
}

// one returns a plan of a single symbol.
func (p *parser) one(back, n uint32) []symbol {
	p.symbols = append(p.symbols[:0], symbol{back, n})
	return p.symbols
}

// plan returns the symbols to encode from pos on, at least one.
func (p *parser) plan(pos int) []symbol {
	p.refresh(p.nice)
	if !p.seen {
		p.found = p.find(p.found[:0])
	}
	p.seen = false
	buf := p.buf
	avail := min(p.end-pos, maxMatch)
	if avail < minMatch {
		return p.one(literal, 1)
	}

	// Choose a match that is long enough without a further search.
	bestRep, repLen := 0, 0
	for i, d := range p.reps {
		a := pos - int(d) - 1
		if a < 0 || buf[a] != buf[pos] || buf[a+1] != buf[pos+1] {
			continue
		}
		if n := extend(buf, a, pos, 2, avail); n > repLen {
			bestRep, repLen = i, n
		}
	}
	if repLen >= p.nice {
		p.skip(repLen - 1)
		return p.one(uint32(bestRep), uint32(repLen))
	}
	longest := 0
	if k := len(p.found); k > 0 {
		longest = int(p.found[k-1].len)
		if longest >= p.nice {
			d := p.found[k-1].dist
			longest = extend(buf, pos-int(d)-1, pos, longest, avail)
			p.skip(longest - 1)
			return p.one(d+4, uint32(longest))
		}
	}
	if longest < minMatch && repLen < minMatch {
		a := pos - int(p.reps[0]) - 1
		if a < 0 || buf[a] != buf[pos] {
			return p.one(literal, 1)
		}
	}

	p.nodes[0] = node{state: p.state, reps: p.reps}
	p.price[0] = 0
	end := 0 // the last node with a price
	cur := 0
	for {
		end = p.leave(pos, cur, end)
		cur++
		if cur == end || cur >= maxNodes-1 {
			break
		}
		p.found = p.find(p.found[:0])
		if k := len(p.found); k > 0 && int(p.found[k-1].len) >= p.nice {
			p.seen = true
			break
		}
		p.visit(cur)
	}
	return p.path(cur)
}

// path returns the symbols that lead to node n.
func (p *parser) path(n int) []symbol {
	out := p.symbols[:0]
	for n > 0 {
		nd := &p.nodes[n]
		out = append(out, nd.sym)
		switch nd.how {
		case byLitRep:
			out = append(out, symbol{literal, 1})
		case byRepTail:
			out = append(out, symbol{literal, 1}, nd.first)
		}
		n = int(nd.from)
	}
	slices.Reverse(out)
	p.symbols = out
	return out
}

// visit computes the state in which the cheapest path reaches node n.
func (p *parser) visit(n int) {
	nd := &p.nodes[n]
	from := &p.nodes[nd.from]
	nd.state, nd.reps = from.state, from.reps
	switch nd.how {
	case byLitRep:
		nd.follow(symbol{literal, 1})
	case byRepTail:
		nd.follow(nd.first)
		nd.follow(symbol{literal, 1})
	}
	nd.follow(nd.sym)
}

func (nd *node) follow(s symbol) {
	switch {
	case s.back == literal:
		nd.state = afterLiteral(nd.state)
	case s.back >= 4:
		nd.reps = [4]uint32{s.back - 4, nd.reps[0], nd.reps[1], nd.reps[2]}
		nd.state = afterMatch(nd.state)
	case s.back == 0 && s.len == 1:
		nd.state = afterShortRep(nd.state)
	default:
		d := nd.reps[s.back]
		for i := s.back; i > 0; i-- {
			nd.reps[i] = nd.reps[i-1]
		}
		nd.reps[0] = d
		nd.state = afterRep(nd.state)
	}
}

// grow adds the nodes up to n, with infinite prices.
func (p *parser) grow(end, n int) int {
	for end < n {
		end++
		p.price[end] = priceInf
	}
	return end
}

// by records that sym leads from node cur to nd.
func (nd *node) by(cur int, sym symbol) {
	nd.from, nd.how, nd.sym = int32(cur), byOne, sym
}

// offer tries the lengths from first to last for one distance. The price of each is
// price plus the price of the length.
func (p *parser) offer(cur, first, last int, back, price uint32, lens *[maxMatch + 1]uint32) {
	known := p.price[cur+first : cur+last+1]
	costs := lens[first : last+1]
	costs = costs[:len(known)]
	for i := range known {
		if q := price + costs[i]; q < known[i] {
			known[i] = q
			p.nodes[cur+first+i].by(cur, symbol{back, uint32(first + i)})
		}
	}
}

// leave tries all symbols from node cur, whose matches are in found, and returns the
// new last node. It is one long function because it is the hottest of the encoder,
// and calls that the compiler does not inline would slow it down.
func (p *parser) leave(pos, cur, end int) int {
	at := pos + cur
	buf := p.buf
	nd := &p.nodes[cur]
	state := nd.state
	reps := nd.reps
	base := p.price[cur]
	ps := uint32(at) & posMask
	c := buf[at]
	prev := byte(0)
	if at > 0 {
		prev = buf[at-1]
	}
	back := at - int(reps[0]) - 1
	b := byte(0)
	hasRep := back >= 0
	if hasRep {
		b = buf[back]
	}

	end = p.grow(end, cur+1)

	// A literal.
	litPrice := base + price0(p.isMatch[state][ps])
	if state < 7 {
		litPrice += p.literalPrice(prev, c)
	} else {
		litPrice += p.matchedPrice(prev, c, b)
	}
	nextLit := false
	if litPrice < p.price[cur+1] {
		p.price[cur+1] = litPrice
		p.nodes[cur+1].by(cur, symbol{literal, 1})
		nextLit = true
	}

	matchPrice := base + price1(p.isMatch[state][ps])
	anyRep := matchPrice + price1(p.isRep[state])

	// One byte at the last distance.
	if hasRep && b == c {
		price := anyRep + price0(p.isRep0[state]) + price0(p.isRep0Long[state][ps])
		if price <= p.price[cur+1] {
			p.price[cur+1] = price
			p.nodes[cur+1].by(cur, symbol{0, 1})
			nextLit = true // continuing from the next node is equivalent
		}
	}

	full := min(p.end-at, maxNodes-1-cur)
	if full < minMatch {
		return end
	}
	avail := min(full, p.nice)

	// A literal and then the last distance, unless the literal is the best way to the
	// next node, which then tries this itself.
	if hasRep && !nextLit && b != c {
		if n := extend(buf, back+1, at+1, 0, min(full-1, p.nice)); n >= minMatch {
			s2, ps2 := afterLiteral(state), uint32(at+1)&posMask
			price := litPrice + price1(p.isMatch[s2][ps2]) + price1(p.isRep[s2]) +
				p.repPrice(0, s2, ps2) + p.repLen.price[ps2][n]
			to := cur + 1 + n
			end = p.grow(end, to)
			if price < p.price[to] {
				p.price[to] = price
				to := &p.nodes[to]
				to.by(cur, symbol{0, uint32(n)})
				to.how = byLitRep
			}
		}
	}

	// The last distances.
	start := minMatch // the shortest match to try
	for i := range reps {
		a := at - int(reps[i]) - 1
		if a < 0 || buf[a] != c || buf[a+1] != buf[at+1] {
			continue
		}
		n := extend(buf, a, at, 2, avail)
		end = p.grow(end, cur+n)
		price := anyRep + p.repPrice(i, state, ps)
		lens := &p.repLen.price[ps]
		p.offer(cur, minMatch, n, uint32(i), price, lens)
		if i == 0 {
			start = n + 1
		}
		end = p.tail(at, cur, end, full, a, symbol{uint32(i), uint32(n)}, price+lens[n], afterRep(state))
	}

	// Matches.
	found := p.found
	if len(found) == 0 {
		return end
	}
	price := matchPrice + price0(p.isRep[state])
	lens := &p.matchLen.price[ps]
	l := start
	for _, m := range found {
		n := min(int(m.len), avail)
		if n < l {
			if int(m.len) > avail {
				break
			}
			continue
		}
		end = p.grow(end, cur+n)
		d := m.dist
		for l <= n {
			s := lenState(uint32(l))
			q := price + p.distPrice(d, s)
			to := n
			if s < numLenStates-1 {
				to = l
			}
			// The price of the distance is the same for all longer lengths.
			p.offer(cur, l, to, d+4, q, lens)
			l = to + 1
		}
		end = p.tail(at, cur, end, full, at-int(d)-1, symbol{d + 4, uint32(n)},
			price+p.distPrice(d, lenState(uint32(n)))+lens[n], afterMatch(state))
		if n == avail {
			break
		}
	}
	return end
}

// tail tries a literal and then the same distance, after the symbol first, which
// covers at to at+first.len and has the given price and state.
func (p *parser) tail(at, cur, end, full, a int, first symbol, price uint32, state uint8) int {
	n := int(first.len)
	limit := min(full-n-1, p.nice)
	if limit < minMatch {
		return end
	}
	buf := p.buf
	at += n
	a += n
	if buf[at+1] != buf[a+1] || buf[at+2] != buf[a+2] {
		return end
	}
	k := extend(buf, a+1, at+1, 2, limit)
	ps := uint32(at) & posMask
	price += price0(p.isMatch[state][ps]) + p.matchedPrice(buf[at-1], buf[at], buf[a])
	state = afterLiteral(state)
	ps = uint32(at+1) & posMask
	price += price1(p.isMatch[state][ps]) + price1(p.isRep[state]) + p.repPrice(0, state, ps) + p.repLen.price[ps][k]
	to := cur + n + 1 + k
	end = p.grow(end, to)
	if price < p.price[to] {
		p.price[to] = price
		to := &p.nodes[to]
		to.by(cur, symbol{0, uint32(k)})
		to.how, to.first = byRepTail, first
	}
	return end
}
