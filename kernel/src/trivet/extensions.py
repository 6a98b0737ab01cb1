"""The smaller families: model repositories, response caches, repository agents.

They are looked up by name when the server starts or a model loads, never while a request is served.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivet.inference import InferenceRequest, InferenceResponse


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that a repository holds."""

    name: str
    repository: str
    """The repository as the operator named it."""
    path: Path
    """The model's folder on local disk."""


class ModelRepository(ABC):
    """A place that holds models. Methods run on a worker thread and may block."""

    @abstractmethod
    def models(self) -> Sequence[FoundModel]:
        """Every model there is now. Raises :class:`~trivet.errors.TrivetError` where the place cannot be read."""

    @abstractmethod
    def find(self, name: str) -> FoundModel | None:
        """One model, fetched to local disk where it is remote; ``None`` where there is none of that name."""


class ResponseCache(ABC):
    """Remembers responses. Called on the event loop; must answer in microseconds or not be used there."""

    @abstractmethod
    def lookup(self, request: InferenceRequest) -> InferenceResponse | None:
        """The response to an equal request, or ``None``."""

    @abstractmethod
    def insert(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """Remember a successful response."""


class RepositoryAgent(ABC):
    """Changes or checks a model's files before they are loaded (decryption, checksums). Runs on a worker thread."""

    @abstractmethod
    def prepare(self, model: FoundModel, parameters: Mapping[str, str]) -> Path:
        """The folder to load from: the model's own or a changed copy. Raises to refuse the model."""

    def release(self, path: Path) -> None:
        """The model was unloaded; remove what ``prepare`` made."""
        return
