package config

import (
	"reflect"
	"slices"
	"testing"
)

// Each key either takes effect at a reload or is named as one that waits for the
// next start.
func TestReloaded(t *testing.T) {
	live := []string{
		"server.max_connections", "fetch.parallel", "fetch.rate_limit", "webhook", "mirror",
		"store.reserve", "store.scrub_interval", "store.scrub_rate", "store.gc_interval", "store.quarantine_time",
	}
	eachKey(reflect.TypeFor[Config](), "", nil, func(key string, index []int) {
		old, next := Default(), Default()
		spoil(t, reflect.ValueOf(&next).Elem().FieldByIndex(index))
		got, restart := Reloaded(&old, &next)
		changed := !reflect.DeepEqual(*got, old)
		if want := slices.Contains(live, key); changed != want {
			t.Errorf("%s: takes effect at a reload: %v, expected %v", key, changed, want)
		} else if want && len(restart) > 0 || !want && !slices.Equal(restart, []string{key}) {
			t.Errorf("%s: waits for the next start: %q", key, restart)
		}
	})
}

// eachKey calls f for each key of a struct, with its index.
func eachKey(typ reflect.Type, prefix string, at []int, f func(key string, index []int)) {
	for i := range typ.NumField() {
		field, index := typ.Field(i), append(slices.Clone(at), i)
		if field.Type.Kind() == reflect.Struct {
			eachKey(field.Type, prefix+field.Tag.Get("toml")+".", index, f)
			continue
		}
		f(prefix+field.Tag.Get("toml"), index)
	}
}

// spoil gives a key another value.
func spoil(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("other")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	default:
		t.Fatalf("a key of kind %v: say in this test how it changes", v.Kind())
	}
}
