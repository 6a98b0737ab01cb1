"""Trivet: an inference server made of a small kernel and pip plugins.

This module imports nothing heavy. A plugin's entry-point module needs ``trivet.hookimpl`` and the descriptions in
``trivet.hookspecs``; see ``trivet.backend`` for the contract most authors start with.
"""

from trivet.hookspecs import API_VERSION, hookimpl, hookspec

__version__ = "0.1.0"

__all__ = ["API_VERSION", "__version__", "hookimpl", "hookspec"]
