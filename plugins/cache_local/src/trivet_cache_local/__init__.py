"""A response cache in the server's own memory (``--cache-config=local,size=BYTES``)."""
