"""``ts.torch_handler.base_handler``: the class that handlers derive from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from trivet.private_code import PrivatePackage

from trivet_backend_torch.handlers.rows import batch, numbers, posted
from trivet_backend_torch.ts.utils.util import PredictionException, list_classes_from_module, load_label_mapping

_logger = logging.getLogger(__name__)
_MAPPING = "index_to_name.json"


class BaseHandler:
    """Loads the archive's network, and runs it between :meth:`preprocess` and :meth:`postprocess`."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, Any] | None = None
        self.device: Any = None
        self.map_location: str | None = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: str | None = None
        self.manifest: dict[str, Any] | None = None
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, Any] = {}
        self.model_yaml_config: dict[str, Any] | None = None

    def initialize(self, context: Any) -> None:
        """Choose the device and load the network and ``index_to_name.json`` from ``context``'s ``model_dir``.

        Raises :class:`RuntimeError` where the manifest names files that are not there.
        """
        properties = context.system_properties
        gpu = properties.get("gpu_id")
        on_gpu = torch.cuda.is_available() and gpu is not None
        self.map_location = "cuda" if on_gpu else "cpu"
        self.device = torch.device(f"cuda:{gpu}" if on_gpu else "cpu")
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = getattr(context, "model_yaml_config", None)
        folder = properties.get("model_dir")
        described = context.manifest["model"]
        model_file = described.get("modelFile", "")
        serialized = described.get("serializedFile", "")
        self.model_pt_path = str(Path(folder, serialized)) if serialized else None
        if self.model_pt_path is not None and not Path(self.model_pt_path).is_file():
            raise RuntimeError(f"the manifest names serializedFile '{serialized}', which the archive does not hold")
        if model_file:
            self.model = self._load_pickled_model(folder, model_file, self.model_pt_path)
            self.model.to(self.device)
            self.model.eval()
        elif serialized.endswith((".onnx", ".so")):
            other = "an ONNX model" if serialized.endswith(".onnx") else "a package of AOTInductor"
            raise RuntimeError(f"BaseHandler runs no network of '{serialized}': serve it without a handler, as {other}")
        elif self.model_pt_path is not None:
            self.model = self._load_torchscript_model(self.model_pt_path)
            self.model.eval()
        else:
            raise RuntimeError("the manifest names neither serializedFile nor modelFile")
        self.model = _compiled(self.model, (self.model_yaml_config or {}).get("pt2"))
        self.mapping = load_label_mapping(Path(folder, _MAPPING))
        self.initialized = True

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        """A TorchScript archive on this handler's device."""
        return torch.jit.load(model_pt_path, map_location=self.device)  # type: ignore[no-untyped-call]

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        """The one class of ``model_file``, with the state_dict of ``model_pt_path``: tensors, no other pickle."""
        path = Path(model_dir, model_file)
        if not path.is_file():
            raise RuntimeError(f"the manifest names modelFile '{model_file}', which the archive does not hold")
        code = getattr(self.context, "model_code", None) or PrivatePackage([Path(model_dir)], "The code of a model.")
        classes = list_classes_from_module(code.load(path.stem), torch.nn.Module)
        if len(classes) != 1:
            raise ValueError(f"Expected only one class as model definition, and '{model_file}' has {len(classes)}")
        model = classes[0]()
        if model_pt_path is not None:
            model.load_state_dict(torch.load(model_pt_path, map_location=self.map_location, weights_only=True))
        return model

    def preprocess(self, data: Any) -> Any:
        """A tensor of the rows, numbers or JSON of numbers, on the handler's device.

        Handlers for images and text write their own. Raises :class:`PredictionException` with status 400 for what is
        neither, and where rows differ in shape.
        """
        return batch([numbers(posted(row)) for row in data]).to(self.device)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """The network's answer."""
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    def postprocess(self, data: Any) -> list[Any]:
        """An answer for each row, as Python lists."""
        answers: list[Any] = data.tolist()
        return answers

    def handle(self, data: Any, context: Any) -> Any:
        """All three steps, or what the first request's header ``explain`` or ``describe`` asks for."""
        return answer(self, data, context, lambda rows: self.postprocess(self.inference(self.preprocess(rows))))

    def _is_explain(self) -> bool:
        """Whether the batch is to be explained. Trivet has only requests in it that agree on that."""
        self.explain = bool(self.context) and self.context.get_request_header(0, "explain") == "True"
        return self.explain

    def _is_describe(self) -> bool:
        """Whether the request asks what the model is."""
        return bool(self.context) and self.context.get_request_header(0, "describe") == "True"

    def explain_handle(self, data_preprocess: Any, raw_data: Any) -> Any:
        """An explanation for each row, by the method ``get_insights`` that a handler has.

        It gets what :meth:`preprocess` made, the first row's ``data`` or ``body``, and its ``target``, 0 by default.
        Raises :class:`PredictionException` with status 400 for a handler without.
        """
        insights = getattr(self, "get_insights", None)
        if insights is None:
            raise PredictionException(f"{type(self).__name__} has no get_insights, and explains nothing", 400)
        row = raw_data[0] if isinstance(raw_data[0], dict) else {}
        return insights(data_preprocess, row.get("data") or row.get("body"), row.get("target") or 0)

    def describe_handle(self) -> Any:
        """For handlers to say what their model is."""
        return None

    def get_device(self) -> Any:
        """Where the network is."""
        return self.device


def answer(handler: BaseHandler, data: Any, context: Any, predict: Callable[[Any], Any]) -> Any:
    """Trivet's: :meth:`BaseHandler.handle`, with any code for the three steps."""
    began = time.perf_counter()
    handler.context = context
    if handler._is_describe():
        answers: Any = [handler.describe_handle()]
    elif handler._is_explain():
        answers = handler.explain_handle(handler.preprocess(data), data)
    else:
        answers = predict(data)
    if context.metrics is not None:
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - began) * 1000, 2), None, "ms")
    return answers


def _compiled(model: Any, pt2: Any) -> Any:
    """What ``pt2`` of ``model-config.yaml`` asks for, and the model as it is where that cannot be compiled.

    That is ``{"compile": {"enable": True, ...}}``, or as of old the name of a backend or arguments of
    ``torch.compile``. Raises :class:`ValueError` for anything else.
    """
    if pt2 is None:
        return model
    if isinstance(pt2, str):
        pt2 = {"backend": pt2}
    if not isinstance(pt2, dict):
        raise ValueError(f"'pt2' of model-config.yaml is {pt2!r}, expected the name of a backend or a mapping")
    if "export" in pt2:
        raise ValueError(
            "'pt2' of model-config.yaml has 'export', a compiled program that is not loaded here; make a package of"
            " AOTInductor of it, and serve that without a handler"
        )
    arguments = dict(pt2.get("compile", pt2))
    if not arguments.pop("enable", "compile" not in pt2):
        return model
    try:
        return torch.compile(model, **arguments)
    except Exception as error:  # noqa: BLE001 - TorchScript, an unknown backend: TorchServe goes on without
        _logger.warning("the network of a handler is not compiled as 'pt2' says: %s", error)
        return model
