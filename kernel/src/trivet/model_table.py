"""The models of one engine by name and version, for whoever asks. :mod:`trivet.model_control` changes what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from trivet.errors import InvalidArgumentError, NotFoundError, UnavailableError
from trivet.lifecycle import LoadedModel, ModelState, ModelVersion
from trivet.model_files import AS_IS, Override
from trivet.statistics import ModelStatistics

UNLOADED = "unloaded"
"""The reason of a version that was unloaded on request, as the repository index shows it."""


class Model:
    """All versions of one model."""

    __slots__ = ("explicit", "fingerprint", "latest", "lock", "members", "name", "override", "versions", "wanted")

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[int, ModelVersion] = {}
        self.latest: LoadedModel | None = None
        """The ready version with the highest number."""
        self.fingerprint: object = None
        """Of what is loaded; a load that would give the same does nothing."""
        self.lock = asyncio.Lock()
        """Held while the model loads or unloads."""
        self.wanted = False
        """It was to be loaded, by whoever asked or as a part of an ensemble, and not to be unloaded since."""
        self.explicit = False
        """It was asked for by name, and not only as a part of an ensemble."""
        self.members: Collection[str] = ()
        """The models that an ensemble is made of, as it was last read."""
        self.override: Override = AS_IS
        """What it was last loaded with, until it is unloaded: an ensemble is built again with it."""

    def keep(self, override: Override) -> None:
        """Put this in the place of :attr:`override`."""
        before, self.override = self.override, override.hold()
        before.release()

    def forget_failures(self, wanted: Collection[int]) -> None:
        """Versions that failed to load and that nobody wants any more no longer keep the server from being ready."""
        for number, entry in self.versions.items():
            if number not in wanted and entry.state is ModelState.UNAVAILABLE:
                entry.reason = UNLOADED

    def refresh(self) -> None:
        """Find ``latest`` again, after a version became ready or ceased to be."""
        ready = [number for number, version in self.versions.items() if version.state is ModelState.READY]
        self.latest = self.versions[max(ready)].loaded if ready else None


class ModelTable:
    """The models that were ever to be loaded. On the event loop; the engine shows its methods and documents them."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        """By name. Written by model control only."""

    @property
    def all_ready(self) -> bool:
        """Every version that should be ready is; one that was unloaded on request should not."""
        return all(
            version.state is ModelState.READY
            or version.state is ModelState.UNLOADING
            or (version.state is ModelState.UNAVAILABLE and version.reason == UNLOADED)
            for model in self.models.values()
            for version in model.versions.values()
        )

    def model(self, name: str, version: str = "") -> LoadedModel:
        """See :meth:`trivet.engine.Engine.model`."""
        model = self.models.get(name)
        if model is None:
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")
        if not version:
            if model.latest is None:
                raise NotFoundError(f"Request for unknown model: '{name}' has no available versions")
            return model.latest
        entry = model.versions.get(parse_version(version))
        if entry is None:
            raise NotFoundError(f"Request for unknown model: '{name}' version {version} is not found")
        if entry.loaded is None or entry.state is not ModelState.READY:
            raise UnavailableError(f"Request for unknown model: '{name}' version {version} is not at ready state")
        return entry.loaded

    def ready(self) -> list[LoadedModel]:
        """See :meth:`trivet.engine.Engine.ready_models`."""
        return [loaded for name in sorted(self.models) for loaded in _ready(self.models[name])]

    def versions(self, name: str) -> list[int]:
        """See :meth:`trivet.engine.Engine.versions`."""
        model = self.models.get(name)
        if model is None:
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")
        return sorted(number for number, entry in model.versions.items() if entry.state is ModelState.READY)

    def statistics(self, name: str = "", version: str = "") -> list[ModelStatistics]:
        """See :meth:`trivet.engine.Engine.statistics`."""
        if not name:
            return [loaded.statistics for loaded in self.ready()]
        model = self.models.get(name)
        if model is None or model.latest is None:
            raise InvalidArgumentError(f"requested model '{name}' is not available")
        if not version:
            return [loaded.statistics for loaded in _ready(model)]
        entry = model.versions.get(parse_version(version))
        if entry is None or entry.loaded is None or entry.state is not ModelState.READY:
            raise InvalidArgumentError(f"requested model version is not available for model '{name}'")
        return [entry.loaded.statistics]


def parse_version(version: str) -> int:
    """A version as callers write it. Raises :class:`~trivet.errors.InvalidArgumentError` where it is no number."""
    if version.isascii() and version.isdecimal():
        return int(version)
    raise InvalidArgumentError(
        f"failed to get model version from specified version string '{version}' (details: stol), version should be an"
        " integral value > 0"
    )


def _ready(model: Model) -> list[LoadedModel]:
    entries = (model.versions[number] for number in sorted(model.versions))
    return [entry.loaded for entry in entries if entry.loaded and entry.state is ModelState.READY]
