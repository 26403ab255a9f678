package api

// Path is the path of the control API, on the socket and over the network.
const Path = "/api/v1/"

// A request with files is multipart/form-data: the part "request" is the request as JSON,
// and each part "file" after it has the bytes of one file. An answer that consists of
// bytes has the Content-Type BytesType.
const (
	RequestPart = "request"
	FilePart    = "file"
	BytesType   = "application/octet-stream"
)
