"""A configuration as the configuration endpoint shows it, with its defaults filled in."""

from __future__ import annotations

import json
from typing import Any

from config_samples import PYTHON, Json
from trivet.config import normalize, parse_json_config, to_dict

GROUP = {
    "name": "m",
    "kind": "KIND_CPU",
    "count": 1,
    "gpus": [],
    "secondary_devices": [],
    "profile": [],
    "passive": False,
    "host_policy": "",
}
"""The one instance group of a model that sets none."""


def shown(config: Json, **how: Any) -> Json:
    parsed = parse_json_config(json.dumps(config), "test")
    normalize(parsed, **{"backend": PYTHON, **how})
    return to_dict(parsed)
