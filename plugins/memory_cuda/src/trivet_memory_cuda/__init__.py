"""CUDA shared memory as a memory provider of Trivet (Triton's CUDA shared memory extension)."""
