"""What a failure of CUDA is about: what was asked, the moment, or the GPU. Nothing here touches CUDA."""

from __future__ import annotations

from trivet.errors import InternalError

OUT_OF_MEMORY = 2
DEVICE_UNAVAILABLE = 46
WRONG_CONTEXT = 201
"""``cudaErrorDeviceUninitialized``; so a handle is refused in the process that it was made in."""
ALREADY_MAPPED = 208
LOST = frozenset({214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721})
"""After one of these every call fails in the same way, whatever it is for: errors of ECC memory and NVLink, illegal
addresses and instructions, failed assertions, launches that ended so. The source is a kernel of any model."""
PASSING = frozenset({OUT_OF_MEMORY, DEVICE_UNAVAILABLE, ALREADY_MAPPED})
"""No fault of what was asked: asked again later it may succeed."""


class CudaError(InternalError):
    """A call of CUDA failed. ``number`` is the error's, which is the same in the runtime's and in the driver's API."""

    def __init__(self, message: str, number: int) -> None:
        if number in LOST:
            message += "; CUDA's context is lost, and with it all work on this GPU until the server is started again"
        super().__init__(message)
        self.number = number
