package httpd

import (
	"net/http"

	"github.com/gorilla/mux"
)

func (s *Server) newPages() (http.Handler, error) {
	m := mux.NewRouter()
	m.Handle("/metrics", s.metrics.handler())
	m.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { s.text(w.(*response), 200, "ok\n") })
	m.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) { s.text(w.(*response), 200, "ok\n") })
	m.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.notFound(w.(*response), r) })
	return m, nil
}
