"""The protocol's messages, generated into :data:`trivet.config.POOL` by ``tools/generate_protos.py``."""
