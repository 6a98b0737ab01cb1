"""The options that this package adds to ``trivet serve``."""

from __future__ import annotations

from trivet.options import Option

CUDA_POOL_DEFAULT = 64 << 20

OPTIONS = (
    Option(
        "pinned-memory-pool-byte-size",
        "integer",
        256 << 20,
        "Bytes of pinned host memory, through which tensors are copied to GPUs and back; 0 for none.",
    ),
    Option(
        "cuda-memory-pool-byte-size",
        help="Bytes of memory on a GPU for copies that the server makes there, as GPU:BYTES; repeat it for several. A"
        f" GPU that is not named has {CUDA_POOL_DEFAULT}.",
        multiple=True,
    ),
)
