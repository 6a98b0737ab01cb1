"""The protocol over gRPC: the service, and the two servers that it runs on."""
