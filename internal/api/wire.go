package api

// Path is where the control API is, on the socket and over the network.
const Path = "/api/v1/"

// A request with files is multipart/form-data: the part "request" is the request
// as JSON, and each part "file" after it has the bytes of one file. An answer of
// bytes has the Content-Type BytesType.
const (
	RequestPart = "request"
	FilePart    = "file"
	BytesType   = "application/octet-stream"
)
