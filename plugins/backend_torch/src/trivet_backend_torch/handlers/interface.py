"""The modules that handlers import from TorchServe, under its names.

They are these also where TorchServe is installed, as in an environment that served with it until now: its own find an
archive's files in the process's working directory, talk to a server of its own, and count in its log. Those of its
modules that have no counterpart here are TorchServe's.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

OWN = ("base_handler", "image_classifier", "image_segmenter", "object_detector")
"""TorchServe's own handlers, as a manifest names them."""
ELSEWHERE = {
    "text_classifier": "it needs a vocabulary of torchtext, which is not made for PyTorch 2.4 and newer",
    "dali_image_classifier": "it needs NVIDIA DALI",
    "vllm_handler": "it needs vLLM",
    "trt_llm_handler": "it needs TensorRT-LLM",
}
"""Those that are not here, and why."""
_MODULES = (
    "ts",
    "ts.context",
    "ts.handler_utils",
    "ts.handler_utils.micro_batching",
    "ts.handler_utils.timer",
    "ts.handler_utils.utils",
    "ts.metrics",
    "ts.metrics.dimension",
    "ts.metrics.metric_type_enum",
    "ts.protocol",
    "ts.protocol.otf_message_handler",
    "ts.service",
    "ts.torch_handler",
    "ts.torch_handler.text_handler",
    "ts.torch_handler.vision_handler",
    *(f"ts.torch_handler.{name}" for name in OWN),
    "ts.utils",
    "ts.utils.util",
)
_lock = threading.Lock()


def own(name: str) -> ModuleType:
    """The module of one of :data:`OWN`."""
    return importlib.import_module(f"trivet_backend_torch.ts.torch_handler.{name}")


def provide() -> None:
    """Make ``from ts.torch_handler.base_handler import BaseHandler`` work. Once per process, from any thread.

    Where another package ``ts`` is imported already it stays.
    """
    with _lock:
        if "ts" in sys.modules:
            return
        installed = importlib.util.find_spec("ts")
        for name in _MODULES:
            module = importlib.import_module(f"trivet_backend_torch.{name}")
            sys.modules[name] = module
            if installed is not None and hasattr(module, "__path__"):
                inside = name.split(".")[1:]
                module.__path__ += [str(Path(at, *inside)) for at in installed.submodule_search_locations or ()]


def missing(module: str, folder: Path, requirements: str | None) -> str:
    """What to do about a module that a handler imports, and that there is not.

    ``folder`` is the archive's, ``requirements`` the name of its list of packages, where it has one.
    """
    if (folder / module.partition(".")[0]).with_suffix(".py").is_file():
        return "which is in the archive, where a pickle does not find it: save the network's state_dict instead"
    if module.partition(".")[0] == "ts":
        return f"which is TorchServe's, and of its modules there are {', '.join(_MODULES[1:])}"
    return f"install what '{requirements}' of the archive lists" if requirements else "install it"
