package httpd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/api"
)

// openAPIName is the path of the description of the API, below apiPrefix.
const openAPIName = "openapi.json"

// openAPI answers with the description of the API. It needs no token.
func (x *exchange) openAPI() {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.w.Header().Set("Allow", "GET, HEAD")
		x.fail(&api.Error{Code: api.CodeMethod, Message: "the description of the API is read with GET", Exit: api.ExitUsage})
		return
	}
	data, err := x.a.described()
	if err != nil {
		x.fail(err)
		return
	}
	x.write(http.StatusOK, "application/json", data)
}

// object is a JSON object, whose keys encoding/json sorts.
type object = map[string]any

// describer makes an OpenAPI 3.1 document of the table of routes and the Go types.
type describer struct {
	schemas object
}

// describe returns the OpenAPI 3.1 description of routes. Those of the control socket
// alone are left out.
func describe(routes map[string]route, version string) ([]byte, error) {
	d := &describer{schemas: object{}}
	paths := object{
		apiPrefix + openAPIName: object{"get": object{
			"operationId": "openapi", "summary": "this document", "security": []any{},
			"responses": object{"200": object{"description": "OpenAPI 3.1", "content": object{"application/json": object{"schema": object{"type": "object"}}}}},
		}},
		apiPrefix + jobPath + "{id}": object{"get": object{
			"operationId": "job", "summary": "one job with its result", "parameters": []any{pathID},
			"responses": d.responses("200", "the job", "application/json", d.schema(reflect.TypeFor[api.Job]())),
		}},
		apiPrefix + jobPath + "{id}/events": object{"get": object{
			"operationId": "job-events", "summary": "the progress of a job as server-sent events, which end with its result or its error",
			"parameters": []any{pathID, object{
				"name": "Last-Event-ID", "in": "header", "required": false, "description": "the number of the last event that was received", "schema": object{"type": "integer", "minimum": 0},
			}},
			"responses": d.responses("200", "events: progress, then result or error", api.EventsType, object{"type": "string"}),
		}},
	}
	for name, rt := range routes {
		if rt.role != "" {
			paths[apiPrefix+name] = object{"post": d.operation(name, rt)}
		}
	}
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "snapd control API", "version": "1",
			"description": "The control API of snapd " + version + ". Requests and results are JSON. A client that sends unknown fields gets an error, results may get further fields.",
		},
		"paths":    paths,
		"webhooks": d.webhooks(),
		"security": []any{object{"token": []any{}}},
		"components": object{
			"schemas": d.schemas,
			"securitySchemes": object{"token": object{
				"type": "http", "scheme": "bearer", "description": "A token of snapctl token create. Roles: " + strings.Join(api.Roles(), ", ") + "; each may do what those before it may.",
			}},
		},
	}, "", "  ")
}

// webhooks describes what webhooks are sent.
func (d *describer) webhooks() object {
	out := object{}
	for typ, data := range map[string]reflect.Type{
		api.TypeSnapshot: reflect.TypeFor[api.EventSnapshot](), api.TypeFreeze: reflect.TypeFor[api.EventFreeze](), api.TypeChannel: reflect.TypeFor[api.EventChannel](),
		api.TypeFailure: reflect.TypeFor[api.EventFailure](), api.TypeStale: reflect.TypeFor[api.EventStale](), api.TypeTest: reflect.TypeFor[api.EventTest](),
	} {
		schema := object{"allOf": []any{d.schema(reflect.TypeFor[api.Event]()), object{"properties": object{"type": object{"const": typ}, "data": d.schema(data)}}}}
		out[typ] = object{"post": object{
			"operationId": "event-" + typ, "summary": "an event of the type " + typ, "description": "Signed as Standard Webhooks says.", "security": []any{},
			"requestBody": object{"required": true, "content": object{"application/json": object{"schema": schema}}},
			"responses":   object{"2XX": object{"description": "the event is accepted"}},
		}}
	}
	return out
}

var pathID = object{"name": "id", "in": "path", "required": true, "schema": object{"type": "string"}}

// operation describes one verb.
func (d *describer) operation(name string, rt route) object {
	request := object{"application/json": object{"schema": d.schema(rt.req)}}
	if rt.take != nil {
		request = object{"multipart/form-data": object{"schema": object{
			"type": "object", "required": []string{api.RequestPart},
			"properties": object{
				api.RequestPart: d.schema(rt.req),
				api.FilePart:    object{"type": "array", "items": object{"type": "string", "contentMediaType": "application/octet-stream"}},
			},
		}}}
	}
	op := object{
		"operationId": strings.ReplaceAll(name, "/", "-"), "summary": rt.about, "description": "Needs the role " + rt.role + ".",
		"x-snapd-role": rt.role, "requestBody": object{"content": request},
	}
	switch {
	case rt.send != nil:
		op["responses"] = d.responses("200", "the bytes", api.BytesType, object{"type": "string", "contentMediaType": api.BytesType})
	case rt.long:
		op["description"] = fmt.Sprintf("Needs the role %s. Long work: the result, %s, is the last event of the job.", rt.role, rt.res.Name())
		op["responses"] = d.responses("202", "the job", "application/json", d.schema(reflect.TypeFor[api.Job]()))
		d.schema(rt.res)
	default:
		op["responses"] = d.responses("200", "the result", "application/json", d.schema(rt.res))
	}
	if rt.touch != nil && rt.take == nil {
		op["parameters"] = []any{object{
			"name": "Idempotency-Key", "in": "header", "required": false, "schema": object{"type": "string", "maxLength": 255},
			"description": "A request with the key of an earlier one is answered with its result, for a day or until snapd stops.",
		}}
	}
	return op
}

func (d *describer) responses(status, about, ctype string, schema object) object {
	return object{
		status:    object{"description": about, "content": object{ctype: object{"schema": schema}}},
		"default": object{"description": "an error", "content": object{api.ProblemType: object{"schema": d.schema(reflect.TypeFor[api.ProblemDetails]())}}},
	}
}

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

// schema describes a type as encoding/json writes it. Named structs are components.
func (d *describer) schema(t reflect.Type) object {
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t == rawType || t.Kind() == reflect.Interface:
		return object{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": []string{"array", "null"}, "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": d.schema(t.Elem())}
	case reflect.Struct:
		if _, ok := d.schemas[t.Name()]; !ok {
			d.schemas[t.Name()] = object{} // it may contain itself
			d.schemas[t.Name()] = d.fields(t)
		}
		return object{"$ref": "#/components/schemas/" + t.Name()}
	}
	panic(fmt.Sprintf("openapi: no schema for %s", t))
}

// fields describes a struct.
func (d *describer) fields(t reflect.Type) object {
	properties, required := object{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		if f.Anonymous && tag == "" || name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		properties[name] = d.schema(f.Type)
		if !slices.Contains(strings.Split(options, ","), "omitempty") && f.Type.Kind() != reflect.Pointer {
			required = append(required, name)
		}
	}
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 && !strings.HasSuffix(t.Name(), "Request") {
		out["required"] = required
	}
	return out
}

// description caches the description of an API.
type description struct {
	once sync.Once
	data []byte
	err  error
}

// described returns the description of the API.
func (a *controlAPI) described() ([]byte, error) {
	a.openapi.once.Do(func() { a.openapi.data, a.openapi.err = describe(a.routes, a.s.cfg.Version) })
	return a.openapi.data, a.openapi.err
}
