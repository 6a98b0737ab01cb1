"""The model configuration: its schema, how it is read, completed, checked and shown.

In the order in which a model's load uses them: :func:`read_config` (or :func:`parse_json_config` for a configuration
that comes with a load request), :func:`select_versions`, the backend's own completion, :func:`normalize`,
:func:`validate`, :func:`unsupported`; then :class:`trivet.config.spec.ModelSpec` for serving and :func:`to_json` for
showing. Nothing here knows a backend: what backends and schedulers add comes in as an argument.
"""

from trivet.config.descriptors import POOL
from trivet.config.documents import parse_json_config, parse_text_config, parse_yaml_config
from trivet.config.json_form import to_dict, to_json
from trivet.config.model_config_pb2 import ModelConfig
from trivet.config.normalization import BackendDefaults, normalize
from trivet.config.reading import find_config, read_config
from trivet.config.support import Unsupported, unsupported
from trivet.config.validation import Problem, find_problems, validate
from trivet.config.versions import select_versions

__all__ = [
    "POOL",
    "BackendDefaults",
    "ModelConfig",
    "Problem",
    "Unsupported",
    "find_config",
    "find_problems",
    "normalize",
    "parse_json_config",
    "parse_text_config",
    "parse_yaml_config",
    "read_config",
    "select_versions",
    "to_dict",
    "to_json",
    "unsupported",
    "validate",
]
