"""What a model's exception says to the caller, in the form that Triton gives it."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path

from trivet import private_code
from trivet.errors import message_of

_HIDDEN = (
    *(str(Path(__file__).parent), private_code.__file__),
    *(str(Path(importlib.__file__).parent), "<frozen importlib"),
)


def describe(error: BaseException) -> str:
    """``Type: message`` and below it where it happened, innermost frame first.

    Frames of this package and of the import system are left out: in Triton they are not Python.
    """
    message = message_of(error) or "<EMPTY MESSAGE>"
    text = f"{type(error).__name__}: {message}"
    frames = [
        f"  {frame.filename}({frame.lineno}): {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_HIDDEN)
    ]
    if not frames:
        return text
    where = "\n".join(reversed(frames))
    return f"{text}\n\nAt:\n{where}\n"
