"""Commands that talk to a running server over KServe v2: ``trivet infer``, ``trivet generate`` and ``trivet models``.

They are plain HTTP clients of the published protocol, so they work with any server that speaks it. This module is read
whenever the command line starts and imports click alone.
"""

from trivet_protocol_kserve_v2.cli.generate import generate as generate_command
from trivet_protocol_kserve_v2.cli.infer import infer as infer_command
from trivet_protocol_kserve_v2.cli.models import models as models_command

COMMANDS = (infer_command, generate_command, models_command)

__all__ = ["COMMANDS"]
