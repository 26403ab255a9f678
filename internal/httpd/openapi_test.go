package httpd_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"example.org/snapd/internal/api"
)

// The description of the API is valid OpenAPI 3.1, needs no token, and names every
// verb with the role that it needs.
func TestOpenAPI(t *testing.T) {
	s := newSite(t, nil)
	resp, err := http.Get(s.network.URL + api.Path + "openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	// The schema that the OpenAPI Initiative publishes for its version 3.1.
	schema, err := jsonschema.NewCompiler().Compile("testdata/openapi-3.1.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Errorf("%#v", err)
	}
	// That schema says nothing about references and the schemas of types.
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("api.json", doc); err != nil {
		t.Fatal(err)
	}
	schemas := doc.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any)
	for name := range schemas {
		if _, err := compiler.Compile("api.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	var status any
	s.call("status", api.Empty{}, &status)
	if sch, err := compiler.Compile("api.json#/components/schemas/Status"); err != nil {
		t.Error(err)
	} else if err := sch.Validate(status); err != nil {
		t.Errorf("an answer: %#v", err)
	}
	var d struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Role     string `json:"x-snapd-role"`
			Security *[]any
		}
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("version %s", d.OpenAPI)
	}
	for verb, role := range map[string]string{"status": api.RoleReader, "record/start": api.RoleBuilder, "freeze": api.RoleReleaser, "token/create": api.RoleAdmin} {
		if got := d.Paths[api.Path+verb]["post"]; got.Role != role || got.Security != nil {
			t.Errorf("%s: %+v, expected the role %s", verb, got, role)
		}
	}
	if _, ok := d.Paths[api.Path+"backup"]; ok {
		t.Error("a verb of the control socket alone is described")
	}
}
