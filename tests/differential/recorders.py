"""Models that tell what they were given: one Python model under many configurations."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

_MODEL = Path(__file__).parent / "recorder" / "model.py"

_CONFIG = """
backend: "python"
input {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] {x} }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }}
output {{ name: "log" data_type: TYPE_STRING dims: [ 1 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
"""

BATCHES = "max_batch_size: 4\n"
TEXT = 'input { name: "t" data_type: TYPE_STRING dims: [ 2 ] optional: true }\n'
DECOUPLED = "model_transaction_policy { decoupled: true }\n"
SHAPES_ONLY = 'parameters { key: "shapes_only" value { string_value: "yes" } }\n'


def config(*parts: str, x: str = "") -> str:
    """A configuration; ``x`` are further fields of the input of that name."""
    return _CONFIG.format(x=x) + "".join(parts)


def sample(x: str = "dims: [ 3 ] zero_data: true", *, name: str = "s", more: str = "batch_size: 1", t: str = "") -> str:
    """A warmup sample; ``x`` and ``t`` are fields of those inputs."""
    text = f'inputs {{ key: "t" value {{ data_type: TYPE_STRING dims: [ 2 ] {t} }} }}' if t else ""
    kind = "" if "data_type" in x else "data_type: TYPE_FP32 "
    return f'model_warmup {{ name: "{name}" {more} inputs {{ key: "x" value {{ {kind}{x} }} }} {text} }}\n'


def build(folder: Path, configs: Mapping[str, str]) -> None:
    """Write a model repository of recorders by name, each with the same files to warm up with."""
    for name, text in configs.items():
        version, warmup = folder / name / "1", folder / name / "warmup"
        version.mkdir(parents=True)
        shutil.copy(_MODEL, version)
        (folder / name / "config.pbtxt").write_text(text)
        warmup.mkdir()
        (warmup / "values").write_bytes(struct.pack("<5f", 1, 2, 3, 4, 5))
        (warmup / "thirteen").write_bytes(struct.pack("<3f", 13, 2, 3))
        (warmup / "texts").write_bytes(struct.pack("<I2sI", 2, b"ab", 0))
