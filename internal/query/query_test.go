package query_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/repo/deb"
)

func pkg(name, version, arch, source string, fields map[string]string) query.Package {
	return query.Package{
		Package: &api.Package{Mirror: "debian", Suites: []string{"stable", "stable-security"}, Components: []string{"updates/main"}, Name: name, Version: version, Arch: arch, Source: source},
		Field: func(name string) (string, bool) {
			for k, v := range fields {
				if strings.EqualFold(k, name) {
					return v, true
				}
			}
			return "", false
		},
		Compare: deb.Format{}.Compare,
	}
}

func TestMatch(t *testing.T) {
	p := pkg("linux-image-6", "1:6.1~rc2-1+b1", "amd64", "linux", map[string]string{"Section": "kernel", "Installed-Size": "4090", "Description": "the kernel (signed)"})
	for q, want := range map[string]bool{
		"linux-image-6": true, "linux": false, "linux*": true, "LINUX*": false, "linux-image-[0-9]": true, "?inux-image-6": true,
		`"linux-image-6"`: true, "source:linux": true, "Source:lin*": true, "source: linux": true, "arch:amd64": true, "arch:all": false,
		"suite:*-security": true, "suite:stable": true, "suite:unstable": false, "component:updates/*": true, "component:*main": true, "mirror:debian": true,
		"$Section": true, "$section (kernel)": true, "$Section (% ker*)": true, "$Section (web)": false, "$Homepage": false, "!$Homepage": true,
		"section:kernel": true, "Section:ker*": true, "section: kernel": true, "section:web": false, "!section:web & linux*": true,
		"$Section (= kernel)": true, "$Section (!= kernel)": false, `$Description ("the kernel (signed)")`: true, `$Description (the * )`: true,
		"$Version (>= 1:6.1)": false, "$Version (>= 1:6~)": true, "$Version (>> 1:6.1~rc1)": true, "$Version (<< 7)": false, "$Version(=1:6.1~rc2-1+b1)": true, "$Version (1:6.1*)": true,
		"$Installed-Size (>> 500)": true, "$Installed-Size (<= 4090)": true, "$Installed-Size (<< 500)": false, "$Installed-Size (= x)": false, "$Installed-Size (!= x)": true,
		"$Package (linux*) & $Architecture (amd64) & $Source (linux)": true,
		"$Package (= linux-image-06)":                                 false, "$Package (!= linux-image-06)": true, "$Section (<< l)": true, "$Section (>> l)": false,
		"nothing | linux*": true, "nothing & linux*": false, "!nothing & linux*": true, "!(nothing | linux*)": false, "a | linux* & arch:all": false, "(a | linux*) & arch:amd64": true, "!!linux*": true,
		"linux* &\n\tarch:amd64":       true,
		"linux-image-6=1:6.1~rc2-1+b1": true, "linux*=1:6.1*": true, "linux-image-6=2": false, `"linux-image-6=1:6.1~rc2-1+b1"`: false, "!linux*=2 & arch:amd64": true,
	} {
		got, err := query.Parse(q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		if got.Match(p) != want {
			t.Errorf("%s: %v, expected %v", q, !want, want)
		}
		if fields := strings.Contains(strings.ToLower(q), "section") || strings.Contains(q, "$Homepage") || strings.Contains(q, "$Installed") || strings.Contains(q, "$Description"); got.Fields() != fields {
			t.Errorf("%s: reads fields: %v", q, got.Fields())
		}
	}
	// A package without a source package's name matches by its own name.
	if q, err := query.Parse("source:bash"); err != nil || !q.Match(pkg("bash", "1", "amd64", "", nil)) {
		t.Error("source:bash does not match bash")
	}
}

func TestSyntax(t *testing.T) {
	for q, want := range map[string]string{
		"":                              "at character 1: expected a package, found the end",
		"  ":                            "at character 3: expected a package, found the end",
		"a b":                           `at character 3: expected &, | or the end, found "b"`,
		"a &":                           "at character 4: expected a package, found the end",
		"(a":                            "at character 3: expected ), found the end",
		"a)":                            `at character 2: expected &, | or the end, found ")"`,
		"$":                             "expected the name of a field, found the end",
		"$Version (":                    "expected ), found the end",
		"$Version ()":                   `expected a value, found ")"`,
		"$Version (> 2)":                `expected <<, <=, =, !=, >=, >> or a value, found "> 2)"`,
		"$Version (>= 2":                "expected ), found the end",
		"[a":                            `malformed pattern "[a"`,
		`"a`:                            "at character 1: a quotation mark without an end",
		"origin:x":                      `"origin" before a colon: expected source, arch, section, suite, component or mirror`,
		":x":                            `"" before a colon`,
		"source:":                       "expected what source: is to be, found the end",
		`""`:                            `malformed pattern ""`,
		"$a:b":                          `"a:b" is not the name of a field`,
		strings.Repeat("(", 200):        "more than 100 parentheses",
		strings.Repeat("!", 200):        "more than 100 parentheses",
		strings.Repeat("a", 70_000):     "it has 70000 bytes, expected at most 65536",
		strings.Repeat("$a|", 21) + "b": "more than 20 fields",
		strings.Repeat("section:a|", 20) + "section:b": "more than 20 fields",
		"section:":  "expected what section: is to be, found the end",
		"section:[": `malformed pattern "["`,
		"a & & b":   `expected a package, found "& b"`,
	} {
		if _, err := query.Parse(q); !errors.Is(err, query.ErrSyntax) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: %v, expected %q", q, err, want)
		}
	}
}

// Parse accepts or refuses any text without a panic, and an accepted query can be
// matched.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a", "a & !b | (c)", "source:x $y", `$Version (>= "2")`, "arch:[a-", "(((", "!!!x"} {
		f.Add(s)
	}
	p := pkg("a", "1", "amd64", "b", map[string]string{"Section": "c"})
	f.Fuzz(func(t *testing.T, s string) {
		q, err := query.Parse(s)
		if err != nil {
			if !errors.Is(err, query.ErrSyntax) {
				t.Error(err)
			}
			return
		}
		if not, err := query.Parse("!(" + s + ")"); err == nil && not.Match(p) == q.Match(p) {
			t.Errorf("%q and its negation agree", s)
		}
	})
}

// Names and Prefix limit the names that can match, so that no other packages need to be
// read.
func TestBound(t *testing.T) {
	for text, want := range map[string]struct {
		names  []string
		listed bool
		prefix string
	}{
		"bash":                         {[]string{"bash"}, true, "bash"},
		"bash=5":                       {[]string{"bash"}, true, "bash"},
		"bash | apt | bash":            {[]string{"apt", "bash"}, true, ""},
		"(bash | apt) & apt":           {[]string{"apt"}, true, "apt"},
		"bash & apt":                   {[]string{}, true, ""},
		"lib*":                         {nil, false, "lib"},
		"lib[ab]*":                     {nil, false, "lib"},
		"libc* | libx*":                {nil, false, "lib"},
		"libc* | libc":                 {nil, false, "libc"},
		"lib* & libc*":                 {nil, false, "libc"},
		"libc* & arch:amd64":           {nil, false, "libc"},
		"$Section & lib*":              {nil, false, "lib"},
		"lib* & $Section & libc":       {[]string{"libc"}, true, "libc"},
		"!lib*":                        {nil, false, ""},
		"source:bash":                  {nil, false, ""},
		"bash | source:bash":           {nil, false, ""},
		"$Package (= bash) | arch:all": {nil, false, ""},
	} {
		q, err := query.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		names, listed := q.Names()
		if listed != want.listed || !slices.Equal(names, want.names) || q.Prefix() != want.prefix {
			t.Errorf("%s: names %q (%v), prefix %q, expected %+v", text, names, listed, q.Prefix(), want)
		}
	}
	for text, want := range map[string]bool{"suite:x": true, "a & !component:main": true, "a | b": false, "$Section": false} {
		if q, err := query.Parse(text); err != nil || q.Places() != want {
			t.Errorf("%s: asks for places: %v, %v", text, !want, err)
		}
	}
	for text, want := range map[string]bool{"bash": true, "bash=5.2-1": true, "libstdc++6": true, "b*": false, "bash=5*": false, "a|b": false, "source:bash": false, `"bash"`: false} {
		if q, err := query.Parse(text); err != nil || q.Only(text) != want {
			t.Errorf("%s: is one name: %v, %v", text, !want, err)
		}
	}
}
