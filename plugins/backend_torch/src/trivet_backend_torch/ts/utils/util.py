"""``ts.utils.util``: labels for classes, and the error with a status of its own."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml


class PredictionException(Exception):  # noqa: N818 - TorchServe's name
    """A handler's own error for its caller; ``error_code`` is an HTTP status."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def get_yaml_config(yaml_file_path: str | Path) -> Any:
    """What a YAML file holds. Raises :class:`OSError` and :class:`yaml.YAMLError`."""
    return yaml.safe_load(Path(yaml_file_path).read_text(encoding="utf-8"))


def check_valid_pt2_backend(backend: str) -> bool:
    """Whether ``torch.compile`` knows a backend of that name."""
    return backend == "eager" or backend in torch.compiler.list_backends(exclude_tags=())


def load_label_mapping(mapping_file_path: str | Path) -> dict[str, Any] | None:
    """The labels of ``index_to_name.json`` by index, as text; ``None`` where there is no such file.

    An entry is a label or a list of names, of which the last is the label. Raises :class:`ValueError` for other
    content.
    """
    path = Path(mapping_file_path)
    if not path.is_file():
        return None
    mapping = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(mapping, dict):
        raise ValueError(f"{path.name} holds a {type(mapping).__name__}, expected an object of labels by index")
    mapping = mapping.get("object_type_names", mapping)
    if isinstance(mapping, list):
        return {str(index): label for index, label in enumerate(mapping)}
    return {str(key): value[-1] if isinstance(value, list) else value for key, value in mapping.items()}


def map_class_to_label(
    probs: Sequence[Sequence[Any]], mapping: dict[str, Any] | None = None, lbl_classes: list[list[int]] | None = None
) -> list[dict[str, Any]]:
    """For each row of probabilities, or of what else there is of each class, a dictionary of it by label.

    ``lbl_classes`` are the rows' classes. Without a mapping the number of a class is its label. Raises
    :class:`LookupError` for a class that the mapping does not have.
    """
    classes = lbl_classes if lbl_classes is not None else [list(range(len(row))) for row in probs]
    return [
        {_label(mapping, index): probability for index, probability in zip(row_classes, row, strict=True)}
        for row_classes, row in zip(classes, probs, strict=True)
    ]


def _label(mapping: dict[str, Any] | None, index: int) -> str:
    if mapping is None:
        return str(index)
    if str(index) not in mapping:
        raise LookupError(f"index_to_name.json has no label for class {index}, and {len(mapping)} others")
    return str(mapping[str(index)])


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """The classes that a module defines itself, all or those of one parent."""
    return [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__ and (parent_class is None or issubclass(member, parent_class))
    ]
