"""The dynamic batcher as a scheduler of Trivet (``dynamic_batching`` of a model configuration)."""
