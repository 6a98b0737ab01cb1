"""The module that a Triton Python model imports; see :mod:`trivet_backend_python.pb_utils`."""

from trivet_backend_python.pb_utils import *  # noqa: F403
