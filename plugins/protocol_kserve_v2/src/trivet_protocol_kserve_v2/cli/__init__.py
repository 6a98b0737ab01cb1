"""Commands that talk to a running server over KServe v2: ``trivet infer`` and ``trivet models``.

They are plain HTTP clients of the published protocol, so they work with any server that speaks it. This module is read
whenever the command line starts and imports click alone.
"""

from trivet_protocol_kserve_v2.cli.infer import infer
from trivet_protocol_kserve_v2.cli.models import models

COMMANDS = (infer, models)

__all__ = ["COMMANDS"]
