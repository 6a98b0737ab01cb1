"""The trace extension: settings of all models and of one, changed, taken back and refused."""

from __future__ import annotations

from .case import Call, Case, one, unary

_NUMBERS = ("7", "0", "-1", "-2", " 7", "12x", "", "x", "2147483647", "2147483648", "-2147483649", "9" * 23)
_LEVELS = (
    *(("OFF",), ("TIMESTAMPS",), ("TENSORS", "TIMESTAMPS"), ("OFF", "TIMESTAMPS"), ("OFF", "OFF")),
    *(("MIN",), ("x",), ("",), ()),
)


def _settings(model: str = "", **settings: tuple[str, ...]) -> Call:
    return unary(
        "TraceSetting", model_name=model, settings={key: {"value": list(texts)} for key, texts in settings.items()}
    )


_NOTHING: dict[str, tuple[str, ...]] = {
    "trace_level": (),
    "trace_rate": (),
    "trace_count": (),
    "log_frequency": (),
}
_RESTORE = (_settings("double", **_NOTHING), _settings(**_NOTHING))


def _changed(model: str, **settings: tuple[str, ...]) -> Case:
    name = f"trace settings of {model or 'all'}: {settings}"
    return Case(name, (_settings(model, **settings), _settings(), _settings("double"), *_RESTORE))


CASES: list[Case] = [
    one("trace settings", _settings()),
    one("trace settings of a model", _settings("double")),
    one("trace settings of an unknown model", _settings("nope")),
    one("change trace settings of an unknown model", _settings("nope", trace_rate=("5",))),
    *(
        _changed(model, **{name: texts})
        for model in ("", "double")
        for name in ("trace_rate", "trace_count", "log_frequency")
        for texts in (*((number,) for number in _NUMBERS), (), ("5", "6"))
    ),
    *(_changed(model, trace_level=level) for model in ("", "double") for level in _LEVELS),
    *(_changed("", trace_file=texts) for texts in (("x",), (), ("x", "y"))),
    *(_changed("", trace_mode=texts) for texts in (("opentelemetry",), ("x",), ())),
    _changed("", x=("1",)),
    _changed("", trace_rate=("5",), trace_level=("TIMESTAMPS",)),
    Case(
        "a model's trace settings follow those of all where they are not its own",
        (
            _settings("double", trace_rate=("3",)),
            _settings(trace_rate=("8",), trace_count=("9",)),
            _settings("double"),
            _settings("double", trace_rate=()),
            *_RESTORE,
        ),
    ),
]
