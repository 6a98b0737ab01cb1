"""A response cache in Redis (``--cache-config=redis,host=...``)."""
