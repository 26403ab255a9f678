package rpm

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"

	"example.org/snapd/internal/repo"
)

// Field returns an element of a package in primary.xml, by its name in any case: those
// with text, such as summary, description, packager, url, and of the format license, vendor,
// group, buildhost and sourcerpm. An element that occurs several times has its first value.
func (Format) Field(rec *repo.Record, name string) (string, bool) {
	d := xml.NewDecoder(io.MultiReader(strings.NewReader(`<metadata xmlns:rpm="r">`), bytes.NewReader(rec.Bytes), strings.NewReader("</metadata>")))
	depth := 0
	for {
		tok, err := d.Token()
		if err != nil {
			return "", false
		}
		switch t := tok.(type) {
		case xml.StartElement:
			// metadata, package, perhaps format, then the element.
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
