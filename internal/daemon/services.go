package daemon

import "example.org/snapd/internal/httpd"

// services joins freeze, gc and the packages beside them to the server.
func (d *daemon) services() httpd.Services {
	return httpd.Services{Verbs: map[string]httpd.Verb{}}
}

// periodic is the daemon's regular work beside syncs.
func (d *daemon) periodic() []task { return nil }
