"""Bytes in, requests out; responses in, bytes out. Nothing here does I/O or knows a server."""
