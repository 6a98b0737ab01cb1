"""The protocol over HTTP: routes that a transport serves, and what their handlers answer."""
