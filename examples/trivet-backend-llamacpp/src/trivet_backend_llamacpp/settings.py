"""What operators and callers can set."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from trivet.errors import InvalidArgumentError
from trivet.inference import ParameterValue

Number = TypeVar("Number", int, float)

# Types of ggml by their numbers: what is computed in another order rounds otherwise, in f16 by enough to turn a close
# choice of a token.
CACHES = {"f16": 1, "f32": 0}


@dataclass(frozen=True)
class ModelSettings:
    """``parameters`` of a model's configuration."""

    texts: int = 8
    """How many texts are answered at a time; others wait."""
    context: int = 1024
    """Most tokens of a text and its answer together."""
    batch: int = 512
    """Most tokens that are computed in one step: one for each text being answered, the rest for texts being read."""
    threads: int = 0
    """Threads that compute; 0 for one per core."""
    gpu_layers: int = 0
    """Layers on a GPU, where llama.cpp was built for one; -1 for all of them."""
    cache: str = "f16"
    """In which type the network keeps what it has read (``CACHES``)."""
    raw: bool = False
    """Read texts as they are, and not as messages to a model that knows of messages."""

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> Self:
        """Raises InvalidArgumentError, which names the parameter."""
        if unknown := parameters.keys() - cls.__dataclass_fields__.keys():
            raise InvalidArgumentError(
                f"unknown parameters {sorted(unknown)}; there are {sorted(cls.__dataclass_fields__)}"
            )
        for name, choices in {"raw": ("true", "false"), "cache": CACHES}.items():
            if name in parameters and parameters[name] not in choices:
                raise InvalidArgumentError(f"parameter {name} is '{parameters[name]}', expected {' or '.join(choices)}")
        least = {"texts": 1, "context": 2, "batch": 1, "threads": 0, "gpu_layers": -1}
        numbers = {}
        for name, smallest in least.items():
            text = parameters.get(name, str(getattr(cls, name)))
            try:
                numbers[name] = int(text)
            except ValueError:
                numbers[name] = smallest - 1
            if numbers[name] < smallest:
                raise InvalidArgumentError(f"parameter {name} is '{text}', expected an integer of at least {smallest}")
        if numbers["batch"] < numbers["texts"]:
            raise InvalidArgumentError(f"parameter batch must be at least the number of texts, {numbers['texts']}")
        numbers["threads"] = numbers["threads"] or len(os.sched_getaffinity(0))
        return cls(**numbers, cache=parameters.get("cache", cls.cache), raw=parameters.get("raw") == "true")


@dataclass(frozen=True)
class GenerationSettings:
    """Parameters of a request."""

    max_tokens: int = 128
    temperature: float = 0.0
    """0 takes the likeliest token each time; above, tokens are drawn, the more freely the higher it is."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that have this share of the probability together."""
    seed: int = 0
    """Of what is drawn."""
    stop: str = ""
    """The answer ends before this text."""
    stream: bool = False
    """A response for each piece of text, as they come; or else one response with all of it."""

    @classmethod
    def read(cls, parameters: Mapping[str, ParameterValue], decoupled: bool) -> Self:
        """Parameters that nobody here knows are others' business. Raises InvalidArgumentError."""
        settings = cls(
            _number(parameters, "max_tokens", cls.max_tokens, 1, 1 << 31),
            _number(parameters, "temperature", cls.temperature, 0.0, 100.0),
            _number(parameters, "top_p", cls.top_p, 0.0, 1.0),
            _number(parameters, "seed", cls.seed, 0, (1 << 32) - 1),
            _of(str, parameters, "stop", cls.stop),
            _of(bool, parameters, "stream", cls.stream),
        )
        if settings.stream and not decoupled:
            raise InvalidArgumentError(
                "parameter stream needs a model with model_transaction_policy { decoupled: true }"
            )
        return settings


_T = TypeVar("_T")


def _of(kind: type[_T], parameters: Mapping[str, ParameterValue], name: str, default: _T) -> _T:
    value = parameters.get(name, default)
    if type(value) is not kind:
        raise InvalidArgumentError(f"parameter {name} is {value!r}, expected a {kind.__name__}")
    return value


def _number(
    parameters: Mapping[str, ParameterValue], name: str, default: Number, least: Number, most: Number
) -> Number:
    value = parameters.get(name, default)
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not least <= value <= most:
        kind = "an integer" if whole else "a number"
        raise InvalidArgumentError(f"parameter {name} is {value!r}, expected {kind} from {least} to {most}")
    return type(default)(value)
