package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/manpage"
)

func completionVerb() *verb {
	return &verb{
		name: "completion", args: "bash|zsh|fish", min: 1, max: 1,
		usage: "print a shell completion script",
		about: `The script completes commands and options and, while snapd is running, the names
of mirrors, snapshots and recordings.`,
		examples: []string{
			"snapctl completion bash > /etc/bash_completion.d/snapctl",
			"snapctl completion zsh > /usr/local/share/zsh/site-functions/_snapctl",
			"snapctl completion fish > ~/.config/fish/completions/snapctl.fish",
		},
		result: new(api.TextResult),
		run: func(_ context.Context, c *call) error {
			script, ok := completionScripts[c.arg(0)]
			if !ok {
				return c.usagef("completion %q: expected bash, zsh or fish", c.arg(0))
			}
			show(c.ui, &api.TextResult{Text: script}, func(r *api.TextResult) { c.ui.text(r.Text) })
			return nil
		},
	}
}

// completeVerb is called by the scripts. Its arguments are the words after the
// program's name, of which the last is being completed. It prints one candidate
// per line, with a tab and a description; ":files" and ":dirs" stand for paths.
func completeVerb() *verb {
	return &verb{
		name: "__complete", args: "WORD...", max: -1, hidden: true,
		usage:    "print the completions of a command line",
		examples: []string{"snapctl __complete -- list --fro"},
		result:   new(api.TextResult),
		run: func(ctx context.Context, c *call) error {
			var b strings.Builder
			for _, cand := range complete(ctx, c, c.Args().Slice()) {
				b.WriteString(clean(cand.word))
				if cand.about != "" {
					b.WriteString("\t" + clean(cand.about))
				}
				b.WriteByte('\n')
			}
			show(c.ui, &api.TextResult{Text: b.String()}, func(r *api.TextResult) { c.ui.text(r.Text) })
			return nil
		},
	}
}

// candidate is a possible completion.
type candidate struct{ word, about string }

// completeTimeout is how long a shell waits for snapd. It is longer in tests.
var completeTimeout = time.Second

// complete returns the completions of the last word.
func complete(ctx context.Context, c *call, words []string) []candidate {
	if len(words) == 0 {
		words = []string{""}
	}
	current, before := words[len(words)-1], words[:len(words)-1]
	l := &line{path: []*verb{root()}, seen: map[string]bool{}}
	var pending *option // the option whose value is expected
	raw := false
	for _, w := range before {
		switch {
		case pending != nil:
			pending = nil
		case raw:
			l.args = append(l.args, w)
		case w == "--":
			raw = true
		case strings.HasPrefix(w, "--"):
			name, _, has := strings.Cut(w[2:], "=")
			o, _ := l.find(name)
			if o != nil && o.value != "" && !o.optional && !has {
				pending = o
			}
			l.seen[name] = true
		default:
			if l.positional(w, nil) != nil {
				return nil
			}
		}
	}
	v := l.verb()
	var out []candidate
	switch {
	case pending != nil:
		out = values(ctx, c, l, pending.value, pending.choices, "")
	case !raw && strings.HasPrefix(current, "--") && strings.Contains(current, "="):
		name, _, _ := strings.Cut(current[2:], "=")
		if o, _ := l.find(name); o != nil && o.value != "" {
			out = values(ctx, c, l, o.value, o.choices, "--"+name+"=")
		}
	case !raw && strings.HasPrefix(current, "-"):
		for _, o := range append(slices.Clone(v.options), globals...) {
			if !l.seen[o.name] || o.many {
				out = append(out, candidate{"--" + o.name, o.usage})
			}
		}
		out = append(out, candidate{"--help", "show help for the command"})
	case len(v.verbs) > 0:
		for _, s := range v.verbs {
			if !s.hidden {
				out = append(out, candidate{s.name, s.usage})
			}
		}
	case v.name == "help":
		path, err := verbPath(root(), l.args)
		if err == nil {
			for _, s := range path[len(path)-1].verbs {
				if !s.hidden {
					out = append(out, candidate{s.name, s.usage})
				}
			}
		}
	case v.name == "completion" && len(l.args) == 0:
		for _, s := range []string{"bash", "zsh", "fish"} {
			out = append(out, candidate{word: s})
		}
	case v.max < 0 || len(l.args) < v.max:
		if kinds := strings.Fields(v.args); len(kinds) > 0 {
			out = values(ctx, c, l, kinds[min(len(l.args), len(kinds)-1)], nil, "")
		}
	}
	return slices.DeleteFunc(out, func(x candidate) bool {
		return !strings.HasPrefix(x.word, ":") && !strings.HasPrefix(x.word, current)
	})
}

// values returns the completions for a kind of value, by the name that help uses
// for it. Long because there are many kinds.
func values(ctx context.Context, c *call, l *line, kind string, choices []string, prefix string) []candidate {
	var out []candidate
	add := func(word, about string) { out = append(out, candidate{prefix + word, about}) }
	for _, s := range choices {
		add(s, "")
	}
	if len(choices) > 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	snapshots := func() api.SnapshotList {
		var r api.SnapshotList
		_ = c.ask(ctx, "list", api.ListRequest{}, &r) // no daemon: no candidates
		return r
	}
	frozen := func(list api.SnapshotList) {
		for _, f := range list.Frozen {
			add(f.Name, "frozen, "+timeText(f.Date))
		}
	}
	mirrors := func() {
		var r api.MirrorList
		_ = c.ask(ctx, "mirror/list", api.Empty{}, &r)
		for _, m := range r.Mirrors {
			add(m.Name, m.Type+" mirror")
		}
	}
	channels := func() {
		var r api.ChannelList
		_ = c.ask(ctx, "channel/list", api.Empty{}, &r)
		for _, x := range r.Channels {
			add(x.Name, "channel, shows "+x.Freeze)
		}
	}
	kind = strings.Trim(kind, "[].")
	switch {
	case strings.HasPrefix(kind, "FILE"):
		out = append(out, candidate{word: ":files"})
	case kind == "DIR" || kind == "D" || strings.HasPrefix(kind, "DIR|"):
		out = append(out, candidate{word: ":dirs"})
	case kind == "M" || kind == "M[@T":
		mirrors()
	case kind == "REF" || kind == "REF|DIR|URL" || kind == "SNAPSHOT":
		list := snapshots()
		if kind != "SNAPSHOT" {
			frozen(list)
			channels()
		}
		seen := map[string]bool{}
		for _, s := range list.Snapshots {
			if !seen[s.Mirror] {
				seen[s.Mirror] = true
				add(s.Mirror+"@latest", "the newest")
			}
			add(s.ID, "")
		}
		if kind == "REF|DIR|URL" {
			out = append(out, candidate{word: ":dirs"})
		}
	case kind == "CHANNEL":
		channels()
	case kind == "WEBHOOK":
		var r api.WebhookList
		_ = c.ask(ctx, "webhook/list", api.Empty{}, &r)
		for _, x := range r.Webhooks {
			add(x.Name, "webhook, "+x.Target)
		}
	case kind == "NAME" && l.under("channel"):
		frozen(snapshots())
		channels()
	case kind == "FROZEN" || strings.HasPrefix(kind, "NAME") && l.under("image", "rebuild", "iuk", "attest", "label"):
		frozen(snapshots())
	case kind == "R" || kind == "NAME" && l.under("record", "freeze"):
		var r api.RecordList
		_ = c.ask(ctx, "record/list", api.Empty{}, &r)
		for _, x := range r.Recordings {
			add(x.Name, "recording, "+fmt.Sprint(x.Files)+" files")
		}
	}
	return out
}

// under reports whether the line's verb has one of these names, or is in a group with
// one of them.
func (l *line) under(names ...string) bool {
	return len(l.path) > 1 && slices.Contains(names, l.path[1].name)
}

var completionScripts = map[string]string{
	"bash": `# bash completion of snapctl
_snapctl() {
    local line=${COMP_LINE:0:COMP_POINT} words word cand path prefix=
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[${#words[@]}-1]}
    # bash takes words apart at these characters and replaces the last part.
    [[ $word == *[=:@]* ]] && prefix=${word%"${word##*[=:@]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r cand _; do
        case $cand in
        :files)
            compopt -o filenames 2>/dev/null
            while read -r path; do COMPREPLY+=("$path"); done < <(compgen -f -- "${word#"$prefix"}") ;;
        :dirs)
            compopt -o filenames 2>/dev/null
            while read -r path; do COMPREPLY+=("$path"); done < <(compgen -d -- "${word#"$prefix"}") ;;
        *)
            COMPREPLY+=("${cand#"$prefix"}") ;;
        esac
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _snapctl snapctl
`,
	"zsh": `#compdef snapctl
# zsh completion of snapctl
_snapctl() {
    local line
    local -a lines candidates
    lines=("${(@f)$(${words[1]} __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in $lines; do
        case $line in
        :files) _files ;;
        :dirs) _files -/ ;;
        *$'\t'*) candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        ?*) candidates+=("${line//:/\\:}") ;;
        esac
    done
    if (( $#candidates )); then
        _describe -V snapctl candidates
    fi
}
if [[ $funcstack[1] == _snapctl ]]; then
    _snapctl "$@"
else
    compdef _snapctl snapctl
fi
`,
	"fish": `# fish completion of snapctl
function __snapctl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    for line in ($program __complete -- $words "$current" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path "$current"
            case ':dirs'
                __fish_complete_directories "$current"
            case '*'
                echo $line
        end
    end
end
complete -c snapctl -f -a '(__snapctl_complete)'
`,
}

func manVerb() *verb {
	return &verb{
		name:  "man",
		usage: "print the manual page, or write one page per command",
		examples: []string{
			"snapctl man | man -l -",
			"snapctl man --output /usr/local/share/man/man1",
		},
		options: []option{{name: "output", value: "DIR", usage: "write snapctl.1 and one page per command to this directory"}},
		result:  new(api.TextResult),
		run: func(_ context.Context, c *call) error {
			r := root()
			out := &api.TextResult{}
			if dir := c.str("output"); dir == "" {
				out.Text = manPage(r, nil, true)
			} else {
				pages := map[string]string{"snapctl.1": manPage(r, nil, false)}
				names := []string{"snapctl.1"}
				for _, v := range r.verbs {
					if !v.hidden {
						name := "snapctl-" + v.name + ".1"
						names = append(names, name)
						pages[name] = manPage(v, []string{"snapctl"}, true)
					}
				}
				for _, n := range names {
					file := filepath.Join(dir, n)
					if err := writeFile(file, []byte(pages[n]), true, 0o644); err != nil {
						return err
					}
					out.Files = append(out.Files, file)
				}
			}
			show(c.ui, out, func(r *api.TextResult) {
				c.ui.text(r.Text)
				for _, f := range r.Files {
					c.ui.printf("wrote %s\n", f)
				}
			})
			return nil
		},
	}
}

// manPage formats the page of a verb. If deep is set, the page also documents the
// verb's commands.
func manPage(v *verb, above []string, deep bool) string {
	names := append(slices.Clone(above), v.name)
	name, title := strings.Join(names, " "), strings.Join(names, "-")
	p := manpage.New(title, 1, "User Commands")
	p.Section("NAME")
	fmt.Fprintf(p, "%s \\- %s\n", manpage.Escape(title), manpage.Escape(v.usage))
	p.Section("SYNOPSIS")
	manSynopsis(p, name, v)
	p.Section("DESCRIPTION")
	if v.about == "" {
		p.Line(sentence(v.usage))
	}
	p.Text(v.about)
	if len(v.verbs) > 0 {
		p.Section("COMMANDS")
		for _, s := range v.verbs {
			switch {
			case s.hidden:
			case deep:
				p.Subsection(s.name)
				manVerbBody(p, name+" "+s.name, s)
			default:
				fmt.Fprintf(p, ".TP\n.BR %s (1)\n", manpage.Escape("snapctl-"+s.name))
				p.Line(s.usage)
			}
		}
	}
	p.Section("OPTIONS")
	manOptions(p, append(slices.Clone(v.options), globals...))
	p.Item("show help for the command", "--help")
	p.Section("EXIT STATUS")
	p.Line("0 ok, 1 failed, 2 usage, 3 partly done, 4 verification failed, 130 interrupted.")
	p.Section("ENVIRONMENT")
	p.Item("control socket of snapd", "SNAPCTL_SOCKET")
	p.Item("no colours", "NO_COLOR")
	p.Item("timestamp of generated files, in seconds since 1970", "SOURCE_DATE_EPOCH")
	if len(v.examples) > 0 {
		p.Section("EXAMPLES")
		p.Examples(v.examples)
	}
	p.Section("SEE ALSO")
	p.WriteString(".BR snapctl (1),\n.BR snapd (8),\n.BR frozen\\-snapd.toml (5)\n")
	return p.String()
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// manVerbBody documents a command within the page of its parent.
func manVerbBody(p *manpage.Page, name string, v *verb) {
	manSynopsis(p, name, v)
	p.WriteString(".PP\n")
	p.Line(sentence(v.usage))
	if v.about != "" {
		p.WriteString(".PP\n")
		p.Text(v.about)
	}
	for _, s := range v.verbs {
		fmt.Fprintf(p, ".PP\n.B %s\n", manpage.Escape(s.name))
		manVerbBody(p, name+" "+s.name, s)
	}
	manOptions(p, v.options)
	if len(v.examples) > 0 && len(v.verbs) == 0 {
		p.WriteString(".PP\nExamples:\n")
		p.Examples(v.examples)
	}
}

func manSynopsis(p *manpage.Page, name string, v *verb) {
	rest := strings.TrimPrefix(synopsis(name, v), name)
	fmt.Fprintf(p, ".B %s\n", manpage.Escape(name))
	if rest = strings.TrimSpace(rest); rest != "" {
		p.Line(rest)
	}
}

func manOptions(p *manpage.Page, list []option) {
	for _, o := range list {
		p.Item(o.usage, o.form())
	}
}
