package rpm

import (
	"bytes"
	"encoding/xml"
	"io"
	"slices"
	"strings"

	"example.org/snapd/internal/repo"
)

// decoderOf reads a package of primary.xml within the element that declares its prefixes.
func decoderOf(rec *repo.Record) *xml.Decoder {
	return xml.NewDecoder(io.MultiReader(strings.NewReader(`<metadata xmlns:rpm="r">`), bytes.NewReader(rec.Bytes), strings.NewReader("</metadata>")))
}

// Field returns the text of an element of a package in primary.xml, such as summary,
// description, packager or url, or within <format> license, vendor, group, buildhost or
// sourcerpm. The name is matched without regard to case. If the element occurs more than
// once, Field returns the first.
func (Format) Field(rec *repo.Record, name string) (string, bool) {
	d := decoderOf(rec)
	depth := 0
	for {
		tok, err := d.Token()
		if err != nil {
			return "", false
		}
		switch t := tok.(type) {
		case xml.StartElement:
			// The element is in metadata > package, or in format there.
			if depth++; depth < 3 || t.Name.Local == "format" || !strings.EqualFold(t.Name.Local, name) {
				continue
			}
			next, err := d.Token()
			text, ok := next.(xml.CharData)
			return strings.TrimSpace(string(text)), ok && err == nil
		case xml.EndElement:
			depth--
		}
	}
}

// element is an element of primary.xml.
type element struct {
	XMLName    xml.Name
	Attributes []xml.Attr `xml:",any,attr"`
	Text       string     `xml:",chardata"`
	Below      []element  `xml:",any"`
}

// operators are the flags of relations in primary.xml.
var operators = map[string]string{"EQ": "=", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}

// Fields returns the elements of a package in primary.xml: their text, or else their
// attributes. The relations of one kind are one field, and so are the files.
func (Format) Fields(rec *repo.Record) (out []repo.Field) {
	var root element
	if decoderOf(rec).Decode(&root) != nil || len(root.Below) == 0 {
		return nil
	}
	for _, e := range root.Below[0].Below {
		if e.XMLName.Local != "format" {
			out = e.addTo(out)
			continue
		}
		for _, e := range e.Below {
			out = e.addTo(out)
		}
	}
	return out
}

// addTo adds what an element says to a list of fields.
func (e *element) addTo(out []repo.Field) []repo.Field {
	name, value := e.XMLName.Local, strings.TrimSpace(e.Text)
	switch {
	case len(e.Below) > 0:
		var entries []string
		for i := range e.Below {
			entries = append(entries, e.Below[i].relation())
		}
		value = strings.Join(entries, ", ")
	case value == "":
		var parts []string
		for _, a := range e.Attributes {
			parts = append(parts, a.Name.Local+"="+a.Value)
		}
		value = strings.Join(parts, " ")
	}
	i := slices.IndexFunc(out, func(f repo.Field) bool { return f.Name == name })
	switch {
	case value == "":
	case i >= 0:
		out[i].Value += "\n" + value
	default:
		out = append(out, repo.Field{Name: name, Value: value})
	}
	return out
}

// relation writes an entry of a kind of relation, such as "bash >= 5.2".
func (e *element) relation() string {
	at := map[string]string{}
	for _, a := range e.Attributes {
		at[a.Name.Local] = a.Value
	}
	out := at["name"]
	if op := operators[at["flags"]]; op != "" {
		v := at["ver"]
		if epoch := at["epoch"]; epoch != "" && epoch != "0" {
			v = epoch + ":" + v
		}
		if at["rel"] != "" {
			v += "-" + at["rel"]
		}
		out += " " + op + " " + v
	}
	return out
}
