package compare

import (
	"html/template"
	"io"
	"sync"

	"example.org/snapd/internal/api"
)

// reportPage is the report. It needs no script and no other file.
var reportPage = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("report").Parse(reportText))
})

const reportText = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.A.Name}} and {{.B.Name}}: {{.Verdict}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
td.path, pre, code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: #f5f5f5; padding: 1rem; }
.expected { color: #595959; }
@media (prefers-color-scheme: dark) { body { color: #e8e8e8; background: #181818; } th, td { border-color: #444; } pre { background: #242424; } .expected { color: #a8a8a8; } }
</style>
</head>
<body>
<h1>{{if eq .Verdict "equal"}}Equal{{else if eq .Verdict "layout"}}Layout only{{else if eq .Verdict "metadata"}}Metadata differs{{else}}Contents differ{{end}}</h1>
<table>
<tr><th></th><th>File</th><th>Format</th><th>Bytes</th><th>SHA-256</th></tr>
<tr><th>A</th><td class="path">{{.A.Name}}</td><td>{{.A.Format}}</td><td>{{.A.Size}}</td><td class="path">{{.A.SHA256}}</td></tr>
<tr><th>B</th><td class="path">{{.B.Name}}</td><td>{{.B.Format}}</td><td>{{.B.Size}}</td><td class="path">{{.B.SHA256}}</td></tr>
</table>
{{if .Codes}}<h2>Causes</h2>
<table>
<tr><th>Code</th><th>Paths</th><th>Expected</th></tr>
{{range .Codes}}<tr><td>{{.Code}}</td><td>{{.Paths}}</td><td>{{.Expected}}</td></tr>
{{end}}</table>
{{end}}{{if .Packages}}<h2>Packages</h2>
<table>
<tr><th>Package</th><th>A</th><th>B</th><th>Paths</th><th>Codes</th></tr>
{{range .Packages}}<tr><td>{{.Package}}</td><td>{{.A}}</td><td>{{.B}}</td><td>{{.Paths}}</td><td>{{range .Codes}}{{.}} {{end}}</td></tr>
{{end}}</table>
{{end}}{{if .Differences}}<h2>Differences</h2>
<table>
<tr><th>Path</th><th>Package</th><th>Code</th><th>A</th><th>B</th><th>Detail</th></tr>
{{range $d := .Differences}}{{range .Causes}}<tr{{if .Expected}} class="expected"{{end}}><td class="path">{{$d.Path}}</td><td>{{$d.Package}}</td><td>{{.Code}}{{if .Expected}} (expected){{end}}</td><td class="path">{{.A}}</td><td class="path">{{.B}}</td><td>{{.Detail}}</td></tr>
{{end}}{{end}}</table>
{{end}}{{range .Unused}}<p>No difference matches line {{.Line}} of the expected ones: <code>{{.Text}}</code></p>
{{end}}{{range .Notes}}<p>{{.}}</p>
{{end}}{{with .Explained}}<h2>{{.Path}}</h2>
<pre>{{.Text}}</pre>
{{end}}{{if .Hint}}<p>More about the remaining differences: <code>{{.Hint}}</code></p>
{{end}}</body>
</html>
`

// WriteHTML writes a result as a page of HTML. Equal results are equal pages.
func WriteHTML(w io.Writer, r *api.CompareResult) error { return reportPage().Execute(w, r) }
