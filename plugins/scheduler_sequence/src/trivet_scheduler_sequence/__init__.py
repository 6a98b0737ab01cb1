"""The sequence batcher as a scheduler of Trivet (``sequence_batching`` of a model configuration)."""
