"""Whether there is a GPU, asked of the driver itself before any library that needs one is touched.

TensorRT's lean runtime ends the process (SIGSEGV) where there is no driver, and others answer with what their own code
did not find. The driver's library is asked directly: that costs no context on any GPU, and cannot crash.

Source: CUDA Driver API, "Initialization", "Device Management". Any thread.
"""

from __future__ import annotations

import ctypes
from typing import Any

from trivet.errors import UnavailableError

LIBRARY = "libcuda.so.1"

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


def device_count() -> int:
    """How many GPUs this process may use, 1 at least. Raises :class:`~trivet.errors.UnavailableError` with why not."""
    driver = _driver()
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise UnavailableError("the NVIDIA driver shows this process no GPU (CUDA_VISIBLE_DEVICES?)")
    return count.value


def require_device(device_id: int) -> None:
    """Raises :class:`~trivet.errors.UnavailableError` where there is no such GPU."""
    count = device_count()
    if not 0 <= device_id < count:
        raise UnavailableError(f"there is no GPU {device_id}: the NVIDIA driver shows {count}, counted from 0")


def compute_capability(device_id: int) -> str:
    """Of a GPU, as ``cc_model_filenames`` writes it: ``"8.6"``. Raises what :func:`require_device` does."""
    require_device(device_id)
    driver = _driver()
    handle, value = ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDeviceGet", ctypes.byref(handle), device_id)
    parts = []
    for attribute in (_MAJOR, _MINOR):
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
        parts.append(value.value)
    return ".".join(map(str, parts))


def _driver() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise UnavailableError(f"there is no NVIDIA driver ({error})") from error
    _call(driver, "cuInit", 0)
    return driver


def _call(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    result = getattr(driver, function)(*arguments)
    if result:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(result, ctypes.byref(text))
        reason = text.value.decode() if text.value else "unknown error"
        raise UnavailableError(f"the NVIDIA driver answers {function} with error {result}: {reason}")
