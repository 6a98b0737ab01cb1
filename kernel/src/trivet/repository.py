"""Where models are found: folders in Triton's layout, ``MODEL/VERSION/files`` with ``MODEL/config.pbtxt`` beside.

Everything here blocks on disk and runs on worker threads.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.errors import InvalidArgumentError, UnavailableError
from trivet.extensions import FoundModel, ModelRepository

if TYPE_CHECKING:
    from trivet.plugins import PluginRegistry

logger = logging.getLogger(__name__)

# Folders that tools leave in a repository, and that are no models.
_IGNORED = frozenset({"__pycache__", "lost+found"})


class DirectoryRepository(ModelRepository):
    """A folder of models on local disk."""

    def __init__(self, url: str) -> None:
        """``url`` is a path, perhaps after ``file://``. Raises :class:`InvalidArgumentError` where it is no folder."""
        self._url = url
        # Absolute, as the code of a model may change the current folder.
        self._root = Path(url.removeprefix("file://")).expanduser().absolute()
        self._unnameable: set[Path] = set()
        if not self._root.is_dir():
            raise InvalidArgumentError(
                f"model repository '{url}' is not a directory; expected a folder that holds one folder per model"
            )

    def models(self) -> Sequence[FoundModel]:
        try:
            paths = [
                path
                for path in sorted(self._root.iterdir())
                if path.is_dir() and not path.name.startswith(".") and path.name not in _IGNORED
            ]
        except OSError as error:
            raise UnavailableError(f"cannot read model repository '{self._url}': {error}") from error
        return [FoundModel(path.name, self._url, path) for path in paths if self._is_nameable(path)]

    def find(self, name: str) -> FoundModel | None:
        # The name comes from a caller: one path segment, never a way out of the repository.
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            return None
        path = self._root / name
        return FoundModel(name, self._url, path) if path.is_dir() else None

    def _is_nameable(self, path: Path) -> bool:
        """Whether a request can name the model: a folder's name is bytes, a model's is text."""
        try:
            path.name.encode()
        except UnicodeEncodeError:
            if path not in self._unnameable:
                self._unnameable.add(path)
                logger.warning("folder %r is not served: its name is not UTF-8; rename it", str(path))
            return False
        return True


def open_repository(registry: PluginRegistry, url: str) -> ModelRepository:
    """The repository that ``url`` names: a local folder, or what the plugin for its scheme makes of it.

    Raises :class:`InvalidArgumentError` where it cannot be opened or no plugin reads its scheme.
    """
    scheme = url.partition("://")[0] if "://" in url else "file"
    if scheme == "file":
        return DirectoryRepository(url)
    offer = registry.repositories.get(scheme)
    if offer is None:
        raise InvalidArgumentError(
            f"model repository '{url}': no installed plugin reads '{scheme}://'; give a local folder"
        )
    return registry.create(offer, ModelRepository, url)


class Repositories:
    """All repositories of a server, as one place to look for models."""

    def __init__(self) -> None:
        self._opened: list[ModelRepository] = []

    def open(self, registry: PluginRegistry, urls: Sequence[str]) -> None:
        """Look in these from now on. Raises as :func:`open_repository` does."""
        self._opened = [open_repository(registry, url) for url in urls]

    def find(self, name: str) -> FoundModel | None:
        """One model, ``None`` where there is none of that name.

        Raises :class:`InvalidArgumentError` where several repositories hold one.
        """
        places = [found for repository in self._opened if (found := repository.find(name)) is not None]
        return only_place(places) if places else None

    def find_all(self) -> dict[str, FoundModel]:
        """Every model by name; of several of one name any."""
        return {found.name: found for repository in self._opened for found in repository.models()}


def only_place(places: Sequence[FoundModel]) -> FoundModel:
    """The one place where a model was found, of one or more.

    Raises :class:`InvalidArgumentError` naming the repositories where there are several: which to serve is not clear.
    """
    if len(places) > 1:
        repositories = ", ".join(place.repository for place in places)
        raise InvalidArgumentError(f"model '{places[0].name}' is in more than one repository: {repositories}")
    return places[0]


def available_versions(model_path: Path) -> list[int]:
    """The numbers of the version folders, ascending.

    Source: Triton model repository, "Model Versions": folders whose names are not numbers, or start with zero, are
    ignored.
    """
    return sorted(
        int(path.name)
        for path in model_path.iterdir()
        if path.name.isascii() and path.name.isdecimal() and not path.name.startswith("0") and path.is_dir()
    )


def read_labels(path: Path) -> list[str]:
    """One label per line; the line's number is the class. Raises :class:`InvalidArgumentError` naming the file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"cannot read label file '{path}': {error}") from error
