"""The model configuration."""

from trivet.config.descriptors import POOL
from trivet.config.model_config_pb2 import ModelConfig

__all__ = ["POOL", "ModelConfig"]
