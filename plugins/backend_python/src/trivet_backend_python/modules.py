"""A Python model's code: in Triton each instance has a process of its own, here each has a private package."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Protocol
from weakref import WeakSet

from trivet.backend import ModelCaller, ModelContext
from trivet.private_code import PrivatePackage, running_package


class Closable(Protocol):
    """Something that is let go of with the model that has it."""

    def close(self) -> None:
        """From any thread, more than once."""
        ...


class ModelPackage(PrivatePackage):
    """One import of one model version's code. :meth:`close` it when its instance is gone."""

    def __init__(self, context: ModelContext) -> None:
        # As Triton has it: what the version's folder does not hold may lie in the model's.
        super().__init__(
            [context.version_path, context.model_path],
            f"The code of model '{context.name}', version {context.version}.",
        )
        self.context = context
        self.resources: WeakSet[Closable] = WeakSet()
        """What the model has of the server's, to be closed with the package."""

    @property
    def call(self) -> ModelCaller | None:
        """How to call other models; ``None`` where no server runs."""
        return self.context.models

    @property
    def logger(self) -> logging.Logger:
        """The model's log."""
        return self.context.logger

    def load_file(self, file: Path) -> ModuleType:
        """Run ``file``, a path inside the version's folder, as a submodule and return it. Raises what it raises."""
        return self.load(".".join(file.relative_to(self.context.version_path).with_suffix("").parts))

    def close(self) -> None:
        """As that of every private package, and let go of :attr:`resources` before."""
        for resource in list(self.resources):
            resource.close()
        super().close()


def calling_model() -> ModelPackage | None:
    """The model whose code is running in this thread; ``None`` outside of any. Not for the path of each request."""
    package = running_package()
    return package if isinstance(package, ModelPackage) else None
