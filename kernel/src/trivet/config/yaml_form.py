"""YAML into plain values that remember where they stood. Imported when a YAML file is read."""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from trivet.config.tree import Path, Position


class YamlError(Exception):
    """The text is not YAML, or a mapping in it has a key twice."""

    def __init__(self, message: str, position: Position | tuple[()] = ()) -> None:
        super().__init__(message)
        self.position = position
        """Empty where it is not known."""


@dataclass(slots=True)
class YamlDocument:
    """What a text holds."""

    value: object = field(default_factory=dict)
    """An empty text is an empty mapping."""
    positions: dict[Path, Position] = field(default_factory=dict)
    """Where each key and each element of a list begins."""


def read_yaml(text: str) -> YamlDocument:
    """Read one document. Raises :class:`YamlError`, or :class:`RecursionError` where it is too deep or endless."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return YamlDocument() if node is None else _Reader(loader).read(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(error.problem or str(error), _position(mark) if mark else ()) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise YamlError(str(error)) from error
    finally:
        loader.dispose()


def _position(mark: yaml.Mark) -> Position:
    return mark.line + 1, mark.column + 1


class _Reader:
    """Walks the nodes of a document; PyYAML's own constructor forgets positions, and the last of equal keys wins."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._document = YamlDocument()
        self._flattened: set[int] = set()

    def read(self, node: yaml.Node) -> YamlDocument:
        self._document.value = self._value(node, ())
        return self._document

    def _value(self, node: yaml.Node, path: Path) -> object:
        self._document.positions.setdefault(path, _position(node.start_mark))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self._loader.construct_object(node)
        self._flatten(node)
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            here = (*path, key_node.value)
            self._document.positions[here] = _position(key_node.start_mark)
            result[key_node.value] = self._value(value_node, here)
        return result

    def _flatten(self, node: yaml.MappingNode) -> None:
        """Check the mapping's own keys, then put what ``<<: *alias`` brings before them. Once: aliases share nodes."""
        if id(node) in self._flattened:
            return
        self._flattened.add(id(node))
        keys: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError("a key must be plain text", _position(key_node.start_mark))
            if key_node.value in keys:
                raise YamlError(f"'{key_node.value}' is there twice in one mapping", _position(key_node.start_mark))
            keys.add(key_node.value)
        self._loader.flatten_mapping(node)
