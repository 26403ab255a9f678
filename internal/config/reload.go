package config

import (
	"reflect"
	"slices"
)

// Reloaded returns the configuration in effect after the file was read again while snapd
// runs: old with the mirrors, webhooks and limits of next. restart lists, in the order of
// the struct, the other keys that differ: they take effect when snapd starts.
func Reloaded(old, next *Config) (live *Config, restart []string) {
	c := *old
	c.Mirrors = next.Mirrors
	c.Webhooks = next.Webhooks
	c.Fetch = next.Fetch
	c.Server.MaxConnections = next.Server.MaxConnections
	c.Store.Reserve = next.Store.Reserve
	c.Store.ScrubInterval, c.Store.ScrubRate = next.Store.ScrubInterval, next.Store.ScrubRate
	c.Store.GCInterval, c.Store.QuarantineTime = next.Store.GCInterval, next.Store.QuarantineTime
	return &c, differing("", reflect.ValueOf(c), reflect.ValueOf(*next))
}

// differing returns the keys whose values differ in two values of the same struct.
func differing(prefix string, a, b reflect.Value) (keys []string) {
	for i := range a.NumField() {
		key, x, y := prefix+a.Type().Field(i).Tag.Get("toml"), a.Field(i), b.Field(i)
		switch {
		case reflect.DeepEqual(x.Interface(), y.Interface()):
		case x.Kind() == reflect.Struct:
			keys = slices.Concat(keys, differing(key+".", x, y))
		default:
			keys = append(keys, key)
		}
	}
	return keys
}
