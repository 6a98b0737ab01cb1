"""The smaller families: model repositories, response caches, repository agents.

They are looked up by name when the server starts or a model loads, never while a request is served.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivet.inference import InferenceResponse


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
        """Every model there is now, in any order; nothing is fetched.

        Raises :class:`~trivet.errors.TrivetError` where the place cannot be read.
        """

    @abstractmethod
    def find(self, name: str) -> FoundModel | None:
        """One model, fetched to local disk where it is remote; ``None`` where there is none of that name.

        ``name`` comes from a caller and may be anything. Raises as :meth:`models` does.
        """


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """How full a cache is."""

    entries: int
    bytes: int
    """What the entries occupy, with what it takes to keep them."""
    capacity_bytes: int
    """The most that they may occupy."""
    evictions: int
    """Entries that had to go for others since the start."""


class ResponseCache(ABC):
    """Remembers responses by key. Every method is called on the event loop, while requests are served.

    The key is the kernel's: a digest of everything that a response depends on (model, version, inputs, requested
    outputs). Equal keys mean equal responses, so a cache looks into neither requests nor models.

    An :class:`~trivet.errors.UnavailableError` or :class:`OSError` of :meth:`lookup` or :meth:`insert` says that the
    cache cannot be reached: it is then not asked for a second. Any other error concerns that one key.
    """

    @property
    def largest_response(self) -> int | None:
        """Bytes of the largest response, all tensors together, worth offering; ``None`` for any."""
        return None

    @property
    def usage(self) -> CacheUsage | None:
        """For whoever exports it; ``None`` where the cache is shared and does not know."""
        return None

    async def open(self) -> None:
        """Get ready, before the first model is loaded.

        Raises :class:`~trivet.errors.TrivetError` where the cache is set up wrongly, which stops the server. A cache
        that merely cannot be reached now does not raise.
        """
        return

    @abstractmethod
    def lookup(self, key: bytes) -> InferenceResponse | Awaitable[InferenceResponse | None] | None:
        """The response of that key, or ``None``.

        A cache in this process answers at once, in microseconds, which costs no task; one behind a network returns an
        awaitable. An error is logged and counts as ``None``.
        """

    @abstractmethod
    def insert(self, key: bytes, response: InferenceResponse) -> Awaitable[None] | None:
        """Remember a successful response. Nobody waits for the result.

        ``response`` is the cache's own: ``tensor.wire()`` of each output is a ``bytes`` object of just that tensor.
        What :meth:`lookup` returns of it is not changed by anybody either.
        """

    async def close(self) -> None:
        """The server stops; no other method is called after."""
        return


class RepositoryAgent(ABC):
    """Changes or checks a model's files before they are loaded (decryption, checksums). Runs on a worker thread."""

    @abstractmethod
    def prepare(self, model: FoundModel, parameters: Mapping[str, str]) -> Path:
        """The folder to load from: the model's own or a changed copy.

        Raises :class:`~trivet.errors.TrivetError` to refuse the model.
        """

    def release(self, path: Path) -> None:
        """The model was unloaded; remove what ``prepare`` made."""
        return
