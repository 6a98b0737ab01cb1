"""A model's configuration file, found in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from trivet.config.documents import parse_json_config, parse_text_config, parse_yaml_config
from trivet.config.model_config_pb2 import ModelConfig
from trivet.errors import InvalidArgumentError

_PARSERS: Mapping[str, Callable[[str, str], ModelConfig]] = {
    ".pbtxt": parse_text_config,
    ".yaml": parse_yaml_config,
    ".yml": parse_yaml_config,
    ".json": parse_json_config,
}


def find_config(model_path: Path, config_name: str | None = None) -> Path | None:
    """The configuration file of a model, ``None`` where it has none.

    With ``config_name`` (``--model-config-name``) that is ``configs/NAME.pbtxt`` where the model has it. Otherwise, and
    as in Triton also where the model has no such file, it is ``config.pbtxt``. The endings ``.yaml``, ``.yml`` and
    ``.json`` serve in place of ``.pbtxt``.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a name that is a path, and naming both where there are two.
    """
    if config_name:
        if Path(config_name).name != config_name:
            raise InvalidArgumentError(
                f"model configuration name '{config_name}' must be the name of a file in 'configs/' without its ending"
            )
        found = _one_of(model_path / "configs", config_name)
        if found is not None:
            return found
    return _one_of(model_path, "config")


def read_config(model_path: Path, name: str, config_name: str | None = None) -> ModelConfig:
    """Read the configuration of the model ``name``; a model without a file has one that holds only the name.

    Blocks. Raises :class:`~trivet.errors.InvalidArgumentError` for what :func:`find_config` does, a file that cannot be
    read, mistakes in it (with line, column and field), and a configuration of another model.
    """
    path = find_config(model_path, config_name)
    if path is None:
        return ModelConfig(name=name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {path}: {error.strerror}") from error
    config = _PARSERS[path.suffix](text, str(path))
    if not config.name:
        config.name = name
    elif config.name != name:
        raise InvalidArgumentError(
            f"unexpected directory name '{name}' for model '{config.name}', directory name must equal model name;"
            f" rename the directory, or correct or remove 'name' in {path}"
        )
    return config


def _one_of(folder: Path, stem: str) -> Path | None:
    found = [path for suffix in _PARSERS if (path := folder / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        raise InvalidArgumentError(
            f"{' and '.join(map(str, found))} are both there, and a model has one configuration; remove one of them"
        )
    return found[0] if found else None
