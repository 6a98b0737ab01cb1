"""The parts of the reference about the model configuration: which field is implemented, and by which package."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from reference_parts import own_registry, table
from trivet.config.descriptors import fields_of, is_repeated, map_parts
from trivet.config.model_config_pb2 import ModelConfig
from trivet.config.support import IMPLEMENTED, NOT_IMPLEMENTED, listed_as
from trivet.hookspecs import BackendPlugin, ExporterPlugin, Offer, SchedulerPlugin

_DONE = "implemented"


class Row(NamedTuple):
    """A field of the schema, or a message with everything below it."""

    path: str
    type: str
    fate: str
    message: bool

    @property
    def shown(self) -> str:
        """Its path, for a table."""
        return f"`{self.path}`" + " and below" * self.message


def config_fields() -> str:
    """Every field of the schema, and what becomes of it."""
    owners: dict[str, list[str]] = {}
    for plugin in own_registry().plugins:
        for _, offer in plugin.offers:
            for path in _claims(offer):
                owners.setdefault(path, []).append(f"`{plugin.package}`")
    lines = []
    for row in _rows(owners):
        found = (owner for entry in owners if _covers(entry, row.path) for owner in owners[entry])
        by = ", ".join(dict.fromkeys(found))
        lines.append((row.shown, row.type, f"{row.fate} by {by}" if row.fate == _DONE and by else row.fate))
    return table(("field", "type", "Trivet"), lines)


def fields_by_backend() -> str:
    """The fields that some backend implements and another does not."""
    backends = dict(sorted(own_registry().backends.items()))
    claimed = [path for offer in backends.values() for path in offer.config_fields]
    lines = []
    for row in _rows(claimed):
        if any(_covers(claim, row.path) for claim in claimed):
            fates = [_fate(row.path, offer.config_fields) for offer in backends.values()]
            lines.append((row.shown, *("yes" if fate == _DONE else fate.split(":")[0] for fate in fates)))
    return table(("field", *(f"`{name}`" for name in backends)), lines)


def fields_of_plugin(name: str) -> str:
    """What becomes of the fields that not every model has, with the backend, scheduler or exporter of that name."""
    registry = own_registry()
    offers = {**registry.backends, **registry.schedulers, **registry.exporters}
    offer = offers[name]
    claims = _claims(offer)
    others = [claim for other in offers.values() if type(other) is not type(offer) for claim in _claims(other)]

    def concerns(path: str) -> bool:
        if any(_covers(claim, path) for claim in claims):
            return True
        elsewhere = any(_covers(claim, path) for claim in others)
        return isinstance(offer, BackendPlugin) and not _implemented(path) and not elsewhere

    lines = [(row.shown, row.fate) for row in _rows(claims, open_claimed=True) if concerns(row.path)]
    return table(("field", f"with `{name}`"), lines)


def _claims(offer: Offer) -> Sequence[str]:
    """The paths of fields that an offer implements, with everything below each."""
    if isinstance(offer, SchedulerPlugin):
        return (offer.name, *offer.config_fields)
    return offer.config_fields if isinstance(offer, (BackendPlugin, ExporterPlugin)) else ()


def _rows(
    claimed: Collection[str], message: Any = ModelConfig.DESCRIPTOR, prefix: str = "", *, open_claimed: bool = False
) -> Iterator[Row]:
    """The schema, with the messages in one row that nobody speaks of the parts of.

    ``open_claimed``: those that a plugin implements as a whole are shown with their fields.
    """
    for field in fields_of(message):
        path = f"{prefix}{field.name}"
        inside = field.message_type if field.message_type is not None and map_parts(field) is None else None
        parts = any(_covers(path, entry) and entry != path for entry in (*IMPLEMENTED, *NOT_IMPLEMENTED, *claimed))
        if inside is not None and (parts or _implemented(path) or (open_claimed and _claimed(path, claimed))):
            yield from _rows(claimed, inside, f"{path}.", open_claimed=open_claimed)
        else:
            yield Row(path, _type(field), _fate(path, claimed), inside is not None)


def _covers(entry: str, path: str) -> bool:
    return path == entry or path.startswith(f"{entry}.")


def _implemented(path: str) -> bool:
    return any(_covers(entry, path) for entry in IMPLEMENTED)


def _claimed(path: str, claims: Collection[str]) -> bool:
    listed = listed_as(path)
    return any(_covers(claim, path) and (claim == listed or claim not in NOT_IMPLEMENTED) for claim in claims)


def _fate(path: str, claimed: Collection[str]) -> str:
    if _implemented(path) or _claimed(path, claimed):
        return _DONE
    listed = listed_as(path)
    if listed is None:
        raise LookupError(f"trivet.config.support says nothing about '{path}'")
    action, consequence = NOT_IMPLEMENTED[listed]
    return f"**{action}**: {consequence}"


def _type(field: FieldDescriptor) -> str:
    parts = map_parts(field)
    if parts is not None:
        return f"map of {_type(parts[0])} to {_type(parts[1])}"
    if field.message_type is not None:
        name = field.message_type.name
    elif field.enum_type is not None:
        name = field.enum_type.name
    else:
        kinds = {value: key for key, value in vars(FieldDescriptor).items() if key.startswith("TYPE_")}
        name = kinds[field.type].removeprefix("TYPE_").lower()
    return f"{name}, repeated" if is_repeated(field) else name
