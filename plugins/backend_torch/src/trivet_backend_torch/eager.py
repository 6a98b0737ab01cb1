"""Eager models: a Python file with the class, and its weights beside it; and modules pickled whole, where allowed.

Source of the layout: Triton's PyTorch 2 models (``model.py``, ``model.pt``). Weights never run code: a ``.pt`` is
loaded with ``weights_only``, a ``.safetensors`` holds nothing but tensors.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
from trivet.errors import InvalidArgumentError
from trivet.private_code import PrivatePackage

from trivet_backend_torch.network import Network
from trivet_backend_torch.runtime import describe, is_out_of_memory, torch
from trivet_backend_torch.settings import ALLOW_UNPICKLING, Settings
from trivet_backend_torch.signature import Signature

_WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def load(path: Path, device: Any, settings: Settings, model: str, *, compile_it: bool = True) -> Network:
    """Run ``path``, construct its class, and give it the weights of the same name, if there are any.

    Raises :class:`~trivet.errors.InvalidArgumentError` for code without a module class, for weights that are not the
    class's, and for a pickle; beside that what the code raises.
    """
    code = PrivatePackage([path.parent], f"The code of '{path.name}'.")
    try:
        module = _class_of(code.load(path.stem), settings.model_class, path.name)(**settings.model_arguments)
        # A link that leads nowhere is weights that are missing, not a model without any.
        weights = next((file for s in _WEIGHT_SUFFIXES if os.path.lexists(file := path.with_suffix(s))), None)
        if weights is not None:
            _load_weights(module, weights, device, settings, model)
        return _network(module, device, settings if compile_it else None, code)
    except BaseException:
        code.close()
        raise


def load_pickle(path: Path, device: Any, settings: Settings, model: str, *, compile_it: bool = True) -> Network:
    """A module that ``torch.save`` wrote whole. Needs the operator's permission; raises as :func:`load`."""
    if not settings.allow_unpickling:
        raise InvalidArgumentError(
            f"'{path.name}' is a Python pickle of torch.save, which may run any code when it is loaded: save the"
            " model as"
            " TorchScript or torch.export program, or put the class into model.py beside its state_dict."
            f" {_permission(model)}"
        )
    module = torch.load(path, map_location=device, weights_only=False)
    if not isinstance(module, torch.nn.Module):
        raise InvalidArgumentError(f"'{path.name}' holds a {type(module).__name__}, expected a torch.nn.Module")
    return _network(module, device, settings if compile_it else None, None)


def _permission(model: str) -> str:
    return f"An operator who trusts it allows it by name: --backend-config=pytorch,{ALLOW_UNPICKLING}={model}"


def _network(module: Any, device: Any, settings: Settings | None, code: PrivatePackage | None) -> Network:
    """``settings`` say whether to compile; without them, the network is only looked at."""
    if getattr(module.forward, "__func__", None) is torch.nn.Module.forward:
        raise InvalidArgumentError(f"the class {type(module).__name__} has no method 'forward'")
    if device is not None:
        module.to(device)
    module.eval()
    signature = Signature.of_callable(module.forward)
    options = settings.compile_options if settings is not None else None
    forward = module if options is None else torch.compile(module, **options)
    return Network(forward, signature, module, code.close if code else lambda: None)


def _class_of(module: ModuleType, wanted: str, filename: str) -> Any:
    """The class that ``MODEL_CLASS`` names, else the only one that the file defines."""
    classes = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, torch.nn.Module) and value.__module__ == module.__name__
    }
    if wanted:
        named = getattr(module, wanted, None)
        if isinstance(named, type) and issubclass(named, torch.nn.Module):
            return named
        raise InvalidArgumentError(
            f"MODEL_CLASS is '{wanted}', which '{filename}' does not define as a torch.nn.Module; it has"
            f" {', '.join(classes) or 'none'}"
        )
    if len(classes) == 1:
        return next(iter(classes.values()))
    if not classes:
        raise InvalidArgumentError(f"'{filename}' defines no subclass of torch.nn.Module")
    raise InvalidArgumentError(
        f"'{filename}' defines {len(classes)} subclasses of torch.nn.Module ({', '.join(classes)}); say which is the"
        ' model in parameters { key: "MODEL_CLASS" }'
    )


def _load_weights(module: Any, path: Path, device: Any, settings: Settings, model: str) -> None:
    where = "cpu" if device is None else str(device)
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path, device=where)
        else:
            state = torch.load(path, map_location=where, weights_only=True)
    except pickle.UnpicklingError as error:
        if not settings.allow_unpickling:
            raise InvalidArgumentError(
                f"'{path.name}' is no state_dict of tensors: it is damaged (a Git LFS pointer?), or a pickle that would"
                f" have to run code; save it with torch.save(model.state_dict(), ...). {_permission(model)}"
            ) from error
        state = torch.load(path, map_location=where, weights_only=False)
    except Exception as error:
        # On a damaged file PyTorch's unpickler comes across anything, such as a KeyError.
        if is_out_of_memory(error):
            raise
        raise InvalidArgumentError(
            f"the weights '{path.name}' cannot be read, they are damaged or incomplete (a Git LFS pointer?):"
            f" {describe(error)}"
        ) from error
    if isinstance(state, torch.nn.Module):
        state = state.state_dict()
    if not isinstance(state, Mapping):
        raise InvalidArgumentError(f"'{path.name}' holds a {type(state).__name__}, expected a state_dict")
    others = [key for key in state if not isinstance(key, str)]
    if others:
        raise InvalidArgumentError(
            f"'{path.name}' has a key {others[0]!r}, expected a state_dict, whose keys are names"
        )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidArgumentError(f"the weights '{path.name}' are not those of the class: {error}") from error
