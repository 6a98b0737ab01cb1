"""The options of ``trivet serve`` that the kernel itself understands, under tritonserver's names and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.errors import InvalidArgumentError
from trivet.options import Option, Settings

if TYPE_CHECKING:
    from trivet.engine import EngineOptions
    from trivet.logs import LogOptions

SERVER_OPTIONS = (
    Option("id", default="trivet", help="Identifier of this server in its metadata."),
    Option(
        "exit-timeout-secs",
        "integer",
        30,
        "Seconds that the server waits for requests in flight after SIGTERM or SIGINT before it exits.",
    ),
    Option(
        "http-transport",
        help="The plugin that serves HTTP, if several are installed (see `trivet plugins`).",
    ),
)

REPOSITORY_OPTIONS = (
    Option(
        "model-repository",
        multiple=True,
        help="Folder with models, or a URL whose scheme a plugin supports. Repeat it for several; a model name that"
        " occurs in two of them is not served. The same as the positional REPOSITORY.",
    ),
    Option("exit-on-error", "boolean", True, "Exit with status 1 when a model fails to load at start."),
    Option(
        "strict-readiness",
        "boolean",
        True,
        "The server is ready only while all its models are; if false, as soon as start-up is over.",
    ),
    Option(
        "disable-auto-complete-config",
        "boolean",
        False,
        "Use model configurations as they are written, without letting backends fill in what is missing.",
    ),
    Option(
        "strict-model-config",
        "boolean",
        False,
        "The older name of --disable-auto-complete-config.",
    ),
    Option(
        "model-control-mode",
        "choice",
        "none",
        "none: load every model at start, and refuse to load or unload later. explicit: load the models of"
        " --load-model at start, and then those that clients ask for.",
        choices=("none", "explicit"),
    ),
    Option(
        "load-model",
        multiple=True,
        help="Model to load at start with --model-control-mode=explicit; repeat it for several. '*' loads all.",
    ),
    Option(
        "model-config-name",
        default="",
        help="Read MODEL/configs/NAME.pbtxt instead of MODEL/config.pbtxt if a model has it.",
    ),
    Option("model-load-thread-count", "integer", 4, "How many models load at the same time."),
    Option("model-load-retry-count", "integer", 0, "How often a failed load of a model is retried."),
)

BACKEND_OPTIONS = (
    Option(
        "backend-config",
        multiple=True,
        help="Setting for one backend as NAME,KEY=VALUE, e.g. onnxruntime,intra_op_thread_count=1.",
    ),
)

INSTANCE_OPTIONS = (
    Option(
        "rate-limit",
        "choice",
        "off",
        "off: an instance executes as soon as it is free. execution_count: it also waits for its turn, and for the"
        " resources of its rate_limiter.",
        choices=("off", "execution_count"),
    ),
    Option(
        "rate-limit-resource",
        multiple=True,
        help="Amount of a resource, as NAME:COUNT or NAME:COUNT:DEVICE; repeat it for several. By default there is as"
        " much as the most demanding instance needs.",
    ),
    Option(
        "host-policy",
        multiple=True,
        help="Where the threads of instances run, as NAME,KEY=VALUE with the keys cpu-cores (0-3,8) and numa-node (0)."
        " Instances whose instance_group names none have the policy cpu, gpu_0 (and so on), or model.",
    ),
)

CACHE_OPTIONS = (
    Option(
        "cache-config",
        multiple=True,
        help="Setting of the response cache as NAME,KEY=VALUE, e.g. local,size=1048576. Repeat it for several settings"
        " of the one cache. Used by the models whose configuration enables response_cache.",
    ),
    Option(
        "response-cache-byte-size",
        "integer",
        help="The older form of --cache-config=local,size=INTEGER.",
    ),
)

TRACE_OPTIONS = (
    Option(
        "trace-config",
        multiple=True,
        help="Tracing of single requests, as KEY=VALUE with the keys level (OFF, TIMESTAMPS, TENSORS; repeat it for"
        " several), rate, count and mode (triton, opentelemetry), or as MODE,KEY=VALUE: triton,file=FILE and"
        " triton,log-frequency=NUMBER, or opentelemetry,url=URL and others of the plugin.",
    ),
    Option("trace-file", help="The older form of --trace-config triton,file=FILE."),
    Option("trace-level", multiple=True, help="The older form of --trace-config level=LEVEL."),
    Option("trace-rate", "integer", help="The older form of --trace-config rate=NUMBER."),
    Option("trace-count", "integer", help="The older form of --trace-config count=NUMBER."),
    Option("trace-log-frequency", "integer", help="The older form of --trace-config triton,log-frequency=NUMBER."),
)

LOG_OPTIONS = (
    Option(
        "log-format",
        "choice",
        "text",
        "text (or default): Triton's log line. ISO8601: the same with a full date. json: one object per line.",
        choices=("text", "default", "ISO8601", "json"),
    ),
    Option("log-verbose", "integer", 0, "1: debug messages of the server and its plugins; 2: of every library."),
    Option("log-info", "boolean", True, "Log at level info."),
    Option("log-warning", "boolean", True, "Log warnings."),
    Option("log-error", "boolean", True, "Log errors."),
    Option("log-access", "boolean", False, "Log a line at level info for each inference request."),
    Option("log-file", "path", None, "Append the log to this file instead of standard error."),
)

_MOST = 2**31 - 1
"""Of any number; as ``tritonserver`` reads them, and few enough seconds for a timer."""

KERNEL_OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "Server": SERVER_OPTIONS,
    "Model repository": REPOSITORY_OPTIONS,
    "Backends": BACKEND_OPTIONS,
    "Instances": INSTANCE_OPTIONS,
    "Response cache": CACHE_OPTIONS,
    "Tracing": TRACE_OPTIONS,
    "Logging": LOG_OPTIONS,
}
"""Everything, under the headings of ``trivet serve --help``."""

ALL_OPTIONS: tuple[Option, ...] = tuple(option for options in KERNEL_OPTIONS.values() for option in options)


def log_options(settings: Settings) -> LogOptions:
    """The ``--log-*`` settings."""
    from trivet.logs import LogOptions  # noqa: PLC0415 - the command line reads this module just to print help

    path = settings["log_file"]
    return LogOptions(
        format=settings["log_format"],
        verbose=settings["log_verbose"],
        info=settings["log_info"],
        warning=settings["log_warning"],
        error=settings["log_error"],
        file=Path(path) if path else None,
    )


def engine_options(settings: Settings) -> EngineOptions:
    """What the engine needs of the settings. Raises as :func:`backend_config` does, for all that it reads."""
    from trivet.engine import EngineOptions  # noqa: PLC0415 - see log_options
    from trivet.host_policy import parse_host_policies  # noqa: PLC0415
    from trivet.resources import ResourceSize  # noqa: PLC0415
    from trivet.trace_settings import trace_options  # noqa: PLC0415

    return EngineOptions(
        model_repositories=list(settings["model_repository"]),
        model_control_mode=settings["model_control_mode"],
        load_models=list(settings["load_model"]),
        strict_readiness=settings["strict_readiness"],
        strict_model_config=settings["strict_model_config"],
        disable_auto_complete_config=settings["disable_auto_complete_config"],
        model_config_name=settings["model_config_name"],
        backend_config=backend_config(settings["backend_config"]),
        rate_limit=settings["rate_limit"],
        rate_limit_resources=[ResourceSize.parse(value) for value in settings["rate_limit_resource"]],
        host_policies=parse_host_policies(settings["host_policy"]),
        cache_config=cache_config(settings["cache_config"], settings["response_cache_byte_size"]),
        trace=trace_options(
            settings["trace_config"],
            file=settings["trace_file"],
            levels=settings["trace_level"],
            rate=settings["trace_rate"],
            count=settings["trace_count"],
            log_frequency=settings["trace_log_frequency"],
        ),
        model_load_thread_count=settings["model_load_thread_count"],
        model_load_retry_count=settings["model_load_retry_count"],
    )


def backend_config(values: list[str]) -> dict[str, dict[str, str]]:
    """``NAME,KEY=VALUE`` settings by backend name.

    Raises :class:`~trivet.errors.InvalidArgumentError` quoting what is malformed. ``,KEY=VALUE`` without a name
    is Triton's setting for all backends and is kept under ``""``.
    """
    configs: dict[str, dict[str, str]] = {}
    for value in values:
        name, comma, setting = value.partition(",")
        key, equals, text = setting.partition("=")
        if not (comma and equals and key):
            raise InvalidArgumentError(
                f"--backend-config={value}: expected NAME,KEY=VALUE, e.g. onnxruntime,intra_op_thread_count=1"
            )
        configs.setdefault(name, {})[key] = text
    return configs


def cache_config(values: list[str], byte_size: int | None = None) -> dict[str, dict[str, str]]:
    """``NAME,KEY=VALUE`` settings by name of the cache; ``byte_size`` is that of ``--response-cache-byte-size``.

    Raises :class:`~trivet.errors.InvalidArgumentError` quoting what is malformed, and where both are given.
    """
    if values and byte_size is not None:
        raise InvalidArgumentError(
            "Incompatible flags --response-cache-byte-size and --cache-config both provided. Please provide one or the"
            " other."
        )
    if byte_size is not None:
        return {"local": {"size": str(byte_size)}}
    configs: dict[str, dict[str, str]] = {}
    for value in values:
        name, comma, setting = value.partition(",")
        key, equals, text = setting.partition("=")
        if not (name and comma):
            raise InvalidArgumentError(
                f"No cache specified. --cache-config option format is <cache name>,<setting>=<value>. Got {value}"
            )
        if not (equals and key):
            raise InvalidArgumentError(f"--cache-config option format is <cache name>,<setting>=<value>. Got {value}")
        configs.setdefault(name, {})[key] = text
    return configs


def check_settings(settings: Settings) -> None:
    """Raise :class:`~trivet.errors.InvalidArgumentError` for settings that exclude each other."""
    explicit = settings["model_control_mode"] == "explicit"
    wanted = settings["load_model"]
    if wanted and not explicit:
        raise InvalidArgumentError("Use of '--load-model' requires setting '--model-control-mode=explicit' as well.")
    if "*" in wanted and len(wanted) > 1:
        raise InvalidArgumentError(
            "Wildcard model name '*' must be the ONLY startup model if specified at all; remove the other --load-model."
        )
    for key, least in (("exit_timeout_secs", 0), ("model_load_thread_count", 1), ("model_load_retry_count", 0)):
        _check_range(key, settings[key], least, _MOST)
    for key, value in settings.items():
        # The plugins' too: what is no port is taken modulo 65536 by some libraries, and ends others with a traceback.
        if key.endswith("_port") and type(value) is int:
            _check_range(key, value, 0, 65535)


def _check_range(key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        wanted = f"at least {least}" if value < least and most == _MOST else f"{least} to {most}"
        raise InvalidArgumentError(f"--{key.replace('_', '-')}={value}: expected {wanted}")
