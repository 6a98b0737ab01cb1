"""``trivet models``: what a running server holds, and load and unload."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trivet_protocol_kserve_v2.cli.options import server_options

if TYPE_CHECKING:
    from trivet_protocol_kserve_v2.cli.client import Client


def _connect(url: str, timeout_s: float, ca_certificate: str | None) -> Client:
    from trivet_protocol_kserve_v2.cli.client import Client  # noqa: PLC0415 - http.client and ssl, when a command runs

    return Client(url, timeout_s, ca_certificate)


@click.group(short_help="List, show, load and unload models of a running server.")
def models() -> None:
    """List, show, load and unload models of a running server."""


@models.command("list")
@click.option("--ready", is_flag=True, help="Only models that are ready.")
@click.option("--json", "as_json", is_flag=True, help="Print the repository index as JSON.")
@server_options
def list_models(ready: bool, as_json: bool, url: str, timeout_s: float, ca_certificate: str | None) -> None:
    """List the models of the server's repositories with their state."""
    with _connect(url, timeout_s, ca_certificate) as client:
        index = client.post("repository", "index", document={"ready": ready})
    if as_json:
        click.echo(json.dumps(index, indent=2))
        return
    rows = [[entry.get(key, "") for key in ("name", "version", "state", "reason")] for entry in index]
    _print_columns(
        ("NAME", "VERSION", "STATE", "REASON"), [[cell or "-" for cell in row[:3]] + row[3:] for row in rows]
    )


@models.command()
@click.argument("name")
@click.option("--model-version", default="", metavar="N", help="This version; the latest without it.")
@click.option("--config", "show_config", is_flag=True, help="Print the model's whole configuration as JSON.")
@click.option("--statistics", "show_statistics", is_flag=True, help="Print the model's statistics as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the metadata as JSON.")
@server_options
def show(
    name: str,
    model_version: str,
    show_config: bool,
    show_statistics: bool,
    as_json: bool,
    url: str,
    timeout_s: float,
    ca_certificate: str | None,
) -> None:
    """Show the inputs and outputs of a model."""
    from trivet_protocol_kserve_v2.cli.client import model_path  # noqa: PLC0415 - see _connect

    path = model_path(name, model_version)
    with _connect(url, timeout_s, ca_certificate) as client:
        if show_config:
            click.echo(json.dumps(client.get(*path, "config"), indent=2, ensure_ascii=False))
            return
        if show_statistics:
            click.echo(json.dumps(client.get(*path, "stats"), indent=2))
            return
        metadata = client.get(*path)
    if as_json:
        click.echo(json.dumps(metadata, indent=2))
        return
    click.echo(f"{metadata['name']}  versions {', '.join(metadata.get('versions', [])) or '-'}  {metadata['platform']}")
    rows = [
        [kind, tensor["name"], tensor["datatype"], f"[{', '.join(map(str, tensor['shape']))}]"]
        for kind in ("input", "output")
        for tensor in metadata.get(f"{kind}s", [])
    ]
    _print_columns(("", "NAME", "DATATYPE", "SHAPE"), rows)


@models.command()
@click.argument("name")
@click.option(
    "--config", "config_file", metavar="FILE", help="JSON model configuration to use in place of the repository's."
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATH=FILE",
    help="Content for PATH in the model's folder, e.g. 1/model.onnx=new.onnx; needs --config. Repeat it for several.",
)
@server_options
def load(
    name: str, config_file: str | None, files: Sequence[str], url: str, timeout_s: float, ca_certificate: str | None
) -> None:
    """Load a model, or load it again. The server must run with --model-control-mode=explicit."""
    parameters: dict[str, Any] = {}
    if config_file is not None:
        parameters["config"] = _read_config(config_file)
    for file in files:
        path, equals, local = file.partition("=")
        if not equals or not path or not local:
            raise click.UsageError(f"--file {file}: expected PATH=FILE, e.g. 1/model.onnx=new.onnx")
        parameters[f"file:{path}"] = base64.b64encode(_read(local, "--file")).decode()
    document = {"parameters": parameters} if parameters else None
    with _connect(url, timeout_s, ca_certificate) as client:
        client.post("repository", "models", name, "load", document=document)
    click.echo(f"loaded {name}")


@models.command()
@click.argument("name")
@click.option("--unload-dependents", is_flag=True, help="Unload also the models that only this ensemble needed.")
@server_options
def unload(name: str, unload_dependents: bool, url: str, timeout_s: float, ca_certificate: str | None) -> None:
    """Unload a model. The server must run with --model-control-mode=explicit."""
    document = {"parameters": {"unload_dependents": True}} if unload_dependents else None
    with _connect(url, timeout_s, ca_certificate) as client:
        client.post("repository", "models", name, "unload", document=document)
    click.echo(f"unloaded {name}")


def _read_config(file: str) -> str:
    text = _read(file, "--config")
    try:
        json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--config {file}: not JSON ({error}); a load request takes no other form") from error
    return text.decode()


def _read(file: str, option: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{option} {file}: {error.strerror}") from error


def _print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
