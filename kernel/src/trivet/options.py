"""Command-line options that plugins add to ``trivet serve``, and the settings that come of them.

A plugin declares :class:`Option` objects; the CLI turns them into flags, ``TRIVET_*`` variables and TOML keys, and
hands all values to every plugin as one :class:`Settings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["string", "integer", "number", "boolean", "path", "choice"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``name`` is spelled as on the command line without the dashes, e.g. ``"http-port"``.

    ``default`` is the value where nobody gives one; ``None`` leaves the setting ``None``, or an empty list where the
    option is ``multiple``. ``choices`` are for the kind ``"choice"``. Settings are ``str`` for ``"string"``, ``"path"``
    and ``"choice"``, ``int`` for ``"integer"``, ``float`` for ``"number"`` and ``bool`` for ``"boolean"``.
    """

    name: str
    kind: Kind = "string"
    default: Any = None
    help: str = ""
    choices: tuple[str, ...] = ()
    multiple: bool = False
    """May be given several times; the setting is then a list."""

    @property
    def key(self) -> str:
        """The key in :class:`Settings` and TOML, e.g. ``"http_port"``."""
        return self.name.replace("-", "_")


class Settings(Mapping[str, Any]):
    """All option values by key, defaults included. Immutable. A missing key raises :class:`KeyError` as a dict does."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    @classmethod
    def of(cls, options: tuple[Option, ...], **values: Any) -> Settings:
        """Defaults of ``options`` with ``values`` on top: how tests and embedders build settings.

        Raises :class:`ValueError` for a value of no option.
        """
        defaults: dict[str, Any] = {o.key: ([] if o.multiple and o.default is None else o.default) for o in options}
        unknown = values.keys() - defaults.keys()
        if unknown:
            raise ValueError(f"unknown settings {sorted(unknown)}; known are {sorted(defaults)}")
        return cls(defaults | values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
