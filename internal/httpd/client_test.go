package httpd

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
)

// TestClient: each verb that a token may use is a method of the client, with the
// types of the verb.
func TestClient(t *testing.T) {
	t.Parallel()
	names := map[string]string{
		"add": "AddPackages", "remove": "RemovePackages", "rm": "Remove", "gc": "GC", "sbom": "SBOM",
		"channel/rm": "ChannelRemove", "record/rm": "RecordRemove", "attest/rm": "AttestRemove",
	}
	generic := []string{"Call", "Send", "SendStream", "Receive", "ReceiveStream"}
	c := reflect.TypeFor[*client.Client]()
	var known []string
	for verb, r := range routes(nil, nil) {
		if r.role == "" {
			continue
		}
		name := names[verb]
		if name == "" {
			for word := range strings.SplitSeq(verb, "/") {
				name += strings.ToUpper(word[:1]) + word[1:]
			}
		}
		known = append(known, name)
		m, ok := c.MethodByName(name)
		if !ok {
			t.Errorf("%s: the client has no method %s", verb, name)
			continue
		}
		in := []reflect.Type{c, reflect.TypeFor[context.Context]()}
		if r.req != reflect.TypeFor[api.Empty]() {
			in = append(in, r.req)
		}
		var got []reflect.Type
		for i := range m.Type.NumIn() {
			got = append(got, m.Type.In(i))
		}
		if len(got) < len(in) || !slices.Equal(got[:len(in)], in) {
			t.Errorf("%s: %s takes %v, expected %v first", verb, name, got, in)
		}
		if progress := got[len(got)-1] == reflect.TypeFor[func(client.Progress)](); progress != (r.long || r.take != nil || r.send != nil) {
			t.Errorf("%s: %s reports progress: %v", verb, name, progress)
		}
		if r.send == nil && m.Type.Out(0) != reflect.PointerTo(r.res) {
			t.Errorf("%s: %s returns %v, expected *%v", verb, name, m.Type.Out(0), r.res)
		}
	}
	for i := range c.NumMethod() {
		if name := c.Method(i).Name; !slices.Contains(generic, name) && !slices.Contains(known, name) {
			t.Errorf("%s is no verb of the API", name)
		}
	}
}
