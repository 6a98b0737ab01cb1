"""Write the generated parts of ``docs/reference/`` and of the plugins' READMEs from the code that they describe.

A page holds text by hand and, between ``<!-- generated: NAME -->`` and ``<!-- end of generated -->``, what the function
of that name here makes; some take an argument (``<!-- generated: NAME ARGUMENT -->``). ``python
tools/generate_reference.py`` writes the pages; a test fails while one is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click
from config_reference import config_fields, fields_by_backend, fields_of_plugin
from reference_parts import ROOT, own_registry, table
from trivet import errors
from trivet.cli import cli
from trivet.cli.parameters import ALIASES, OptionsCommand, click_option
from trivet.cli.tritonserver import NOT_YET
from trivet.options import Option
from trivet.server_options import ALL_OPTIONS, KERNEL_OPTIONS
from trivet_protocol_kserve_v2.errors import GRPC_STATUS, HTTP_STATUS
from trivet_protocol_kserve_v2.extensions import EXTENSIONS
from trivet_protocol_kserve_v2.http.openapi import document

REFERENCE = ROOT / "docs" / "reference"

_REGION = re.compile(r"(<!-- generated: ([\w-]+)(?: (\w+))? -->\n).*?(<!-- end of generated -->)", re.DOTALL)

# What `tritonserver --help` of version 2.51 lists.
TRITON_OPTIONS = """
allow-cpu-metrics allow-gpu-metrics allow-grpc allow-http allow-metrics allow-sagemaker allow-vertex-ai backend-config
backend-directory buffer-manager-thread-count cache-config cache-directory cuda-memory-pool-byte-size
cuda-virtual-address-size disable-auto-complete-config enable-peer-access exit-on-error exit-timeout-secs grpc-address
grpc-header-forward-pattern grpc-http2-max-ping-strikes grpc-http2-max-pings-without-data
grpc-http2-min-recv-ping-interval-without-data grpc-infer-allocation-pool-size grpc-infer-response-compression-level
grpc-keepalive-permit-without-calls grpc-keepalive-time grpc-keepalive-timeout grpc-max-connection-age
grpc-max-connection-age-grace grpc-port grpc-restricted-protocol grpc-root-cert grpc-server-cert grpc-server-key
grpc-use-ssl grpc-use-ssl-mutual help host-policy http-address http-header-forward-pattern http-port http-restricted-api
http-thread-count id load-model log-error log-file log-format log-info log-verbose log-warning metrics-address
metrics-config metrics-interval-ms metrics-port min-supported-compute-capability model-config-name model-control-mode
model-load-gpu-limit model-load-retry-count model-load-thread-count model-namespacing model-repository model-store
pinned-memory-pool-byte-size rate-limit rate-limit-resource repoagent-directory repository-poll-secs
response-cache-byte-size reuse-grpc-port reuse-http-port sagemaker-port sagemaker-safe-port-range sagemaker-thread-count
strict-model-config strict-readiness trace-config trace-count trace-file trace-level trace-log-frequency trace-rate
vertex-ai-default-model vertex-ai-port vertex-ai-thread-count
""".split()  # noqa: SIM905 - a list of so many words is hard to read

# What server metadata of Triton 2.51 announces.
TRITON_EXTENSIONS = """
classification sequence model_repository model_repository(unload_dependents) schedule_policy model_configuration
system_shared_memory cuda_shared_memory binary_tensor_data parameters statistics trace logging
""".split()  # noqa: SIM905


# --- the command line


def commands() -> str:
    """Every command with its arguments and options."""
    context = click.Context(cli, info_name="trivet", obj=own_registry())
    return "\n".join(_command(name, command) for name, command in _walk(cli, context, "trivet"))


def _walk(group: click.Group, context: click.Context, prefix: str) -> Iterator[tuple[click.Context, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        # Each with a root of its own: a command caches its parameters in the root's `meta`.
        child = click.Context(command, info_name=f"{prefix} {name}", obj=context.obj)
        if isinstance(command, click.Group):
            yield from _walk(command, child, f"{prefix} {name}")
        else:
            yield child, command


def _command(context: click.Context, command: click.Command) -> str:
    text = [f"## {context.info_name}\n", f"```text\n{_usage(context, command)}\n```\n", _help(command)]
    sections = command.sections(context) if isinstance(command, OptionsCommand) else {}
    of_sections = {option.key for options in sections.values() for option in options}
    own = [
        parameter
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and parameter.name not in of_sections and "--help" not in parameter.opts
    ]
    if own:
        text.append(table(("option", "meaning"), map(_click_option, own)))
    for title, options in sections.items():
        rows = [(_spelling(option), _default(option), _one_of(option.choices) + option.help) for option in options]
        heading = f"### {title}\n" if len(sections) > 1 else ""
        text.append(heading + "\n" * bool(heading) + table(("option", "default", "meaning"), rows))
    return "\n".join(text)


def _usage(context: click.Context, command: click.Command) -> str:
    return " ".join((str(context.info_name), *command.collect_usage_pieces(context)))


def _help(command: click.Command) -> str:
    paragraphs = [part for part in (command.help or "").split("\n\n") if not part.lstrip().startswith(("\b", r"\b"))]
    epilog = [command.epilog] if command.epilog else []
    return "\n\n".join(" ".join(part.split()) for part in (*paragraphs, *epilog)) + "\n"


def _click_option(option: click.Option) -> tuple[str, str]:
    choices = [str(choice) for choice in option.type.choices] if isinstance(option.type, click.Choice) else []
    metavar = "" if option.is_flag else " CHOICE" if choices else f" {option.metavar or option.type.name.upper()}"
    default = option.default
    shown = option.show_default and default not in (None, "")
    return (
        ", ".join(f"`{name}{metavar}`" for name in sorted(option.opts, key=len, reverse=True)),
        _one_of(choices) + (option.help or "") + (f" [default: {default}]" if shown else ""),
    )


def _one_of(choices: Sequence[str]) -> str:
    """Not as `a|b`: a bar in a table needs an escape that GitHub and the site show differently inside of code."""
    return f"One of {', '.join(f'`{choice}`' for choice in choices)}. " if choices else ""


def _spelling(option: Option) -> str:
    shown = click_option(option)
    metavar = "CHOICE" if option.choices else shown.metavar
    return ", ".join(f"`{name} {metavar}`" for name in shown.opts)


def _default(option: Option) -> str:
    if option.default in (None, ""):
        return ""
    return f"`{str(option.default).lower() if isinstance(option.default, bool) else option.default}`"


# --- the protocol


def http_endpoints() -> str:
    """Method, path and meaning of everything that is served over HTTP."""
    rows = [
        (
            f"`{method.upper()}`",
            f"`{path}`",
            operation["summary"],
            ", ".join(sorted(status for status in operation["responses"] if not status.startswith("2"))),
        )
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    ]
    return table(("method", "path", "what it does", "errors"), rows)


def error_codes() -> str:
    """The kernel's errors, and the status that each has in each protocol."""
    rows = []
    for kind in errors.TrivetError.__subclasses__():
        if kind.__module__ == errors.__name__:
            meaning = " ".join((kind.__doc__ or "").split())
            code = kind.code
            rows.append((f"`{kind.__name__}`", meaning, str(HTTP_STATUS[code]), _grpc(GRPC_STATUS[code])))
    return table(("error", "when", "HTTP", "gRPC"), rows)


def _grpc(number: int) -> str:
    names = {
        1: "CANCELLED", 3: "INVALID_ARGUMENT", 5: "NOT_FOUND", 6: "ALREADY_EXISTS", 8: "RESOURCE_EXHAUSTED",
        12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE",
    }  # fmt: skip
    return f"{number} `{names[number]}`"


# --- Triton


def triton_options() -> str:
    """Every option of tritonserver, and what Trivet does with it."""
    offered = {option.name: option for option in (*ALL_OPTIONS, *own_registry().options())}
    rows = []
    for name in TRITON_OPTIONS:
        option = offered.get(ALIASES.get(name, name))
        if option is not None or name == "help":
            rows.append((f"`--{name}`", "yes", ""))
        else:
            rows.append((f"`--{name}`", "no", NOT_YET[name]))
    return table(("option", "there", "instead"), sorted(rows, key=lambda row: (row[1] == "no", row[0])))


def own_options() -> str:
    """What `trivet serve` has and tritonserver has not."""
    owners = {option.key: "kernel" for options in KERNEL_OPTIONS.values() for option in options}
    for plugin in own_registry().plugins:
        for _, offer in plugin.offers:
            owners |= {option.key: plugin.package for option in offer.options if option.key not in owners}
    options = {option.name: option for option in (*ALL_OPTIONS, *own_registry().options())}
    names = sorted(options.keys() - set(TRITON_OPTIONS))
    return ", ".join(f"`--{name}`" for name in names) + "\n"


def triton_extensions() -> str:
    """The protocol's extensions that Triton announces, and whether Trivet has them."""
    registry = own_registry()
    there = {*EXTENSIONS, *(f"{kind}_shared_memory" for kind in registry.memory_providers)}
    there.update(name for offer in registry.schedulers.values() for name in offer.extensions)
    return table(
        ("extension", "there"), [(f"`{name}`", "yes" if name in there else "no") for name in TRITON_EXTENSIONS]
    )


PARTS: Mapping[str, Callable[..., str]] = {
    "commands": commands,
    "config-fields": config_fields,
    "config-fields-by-backend": fields_by_backend,
    "config-fields-of": fields_of_plugin,
    "http-endpoints": http_endpoints,
    "error-codes": error_codes,
    "triton-options": triton_options,
    "own-options": own_options,
    "triton-extensions": triton_extensions,
}


def fill(text: str) -> str:
    """A page with its generated parts as they are now."""

    def filled(region: re.Match[str]) -> str:
        begin, name, argument, end = region.groups()
        made = PARTS[name](argument) if argument else PARTS[name]()
        return f"{begin}\n{made.strip()}\n\n{end}"

    return _REGION.sub(filled, text)


def pages() -> list[Path]:
    """The pages that may have generated parts."""
    return [*sorted(REFERENCE.glob("*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]


def stale() -> list[Path]:
    """The pages whose generated parts are out of date."""
    return [page for page in pages() if page.read_text() != fill(page.read_text())]


def main() -> None:
    """Bring every page up to date, and name those that changed."""
    for page in stale():
        page.write_text(fill(page.read_text()))
        print(page.relative_to(ROOT), file=sys.stderr)


if __name__ == "__main__":
    main()
