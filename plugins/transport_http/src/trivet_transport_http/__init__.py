"""HTTP for Trivet: one router and one set of handlers, served over HTTP/1.1, HTTP/2 and HTTP/3."""
