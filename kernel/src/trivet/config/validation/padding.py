"""Checks of the parameters that let requests of different shapes share a batch."""

from __future__ import annotations

from collections.abc import Iterator

from trivet.config.model_config_pb2 import ModelConfig
from trivet.config.padding import read_padding
from trivet.config.validation.problem import Problem


def padding_problems(config: ModelConfig) -> Iterator[Problem]:
    """What is wrong with ``dynamic_batching.pad`` and ``dynamic_batching.unpad``."""
    for parameter, message in read_padding(config)[1]:
        yield Problem(f"parameters['{parameter}']", f"parameter '{parameter}' {message} for {config.name}")
