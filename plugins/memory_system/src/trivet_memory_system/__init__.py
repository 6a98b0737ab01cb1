"""POSIX shared memory as a memory provider of Trivet (Triton's system shared memory extension)."""
