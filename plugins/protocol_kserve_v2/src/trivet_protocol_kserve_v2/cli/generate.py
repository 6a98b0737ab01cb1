"""``trivet generate``: a stream of responses from a running server, printed as they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from trivet_protocol_kserve_v2.cli.options import key_and_value, server_options

if TYPE_CHECKING:
    from trivet_protocol_kserve_v2.cli.exchange import ModelDescription

_KINDS = (bool, int, float, list)
"""What the extension takes beside text."""


@click.command(short_help="Stream the responses of a model on a running server, such as a language model's tokens.")
@click.argument("model")
@click.argument("text", required=False)
@click.option(
    "--input",
    "-i",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An input: a number, true, false, a list of them as JSON, or text.",
)
@click.option("--parameter", "-p", "parameters", multiple=True, metavar="KEY=VALUE", help="A request parameter.")
@click.option("--model-version", default="", metavar="N", help="Ask this version; the latest without it.")
@click.option("--separator", default="", metavar="TEXT", help="What to print between the texts of two responses.")
@click.option("--json", "as_json", is_flag=True, help="Print each response as a line of JSON.")
@server_options
def generate(
    model: str,
    text: str | None,
    inputs: Sequence[str],
    parameters: Sequence[str],
    model_version: str,
    separator: str,
    as_json: bool,
    url: str,
    timeout_s: float,
    ca_certificate: str | None,
) -> None:
    """Stream the responses of a model on a running server.

    TEXT is for the model's input text_input, or for its only BYTES input. If the only output is text, it is printed as
    it arrives; other outputs are printed as JSON, a line for each response.

    \b
    trivet generate pronunciation "Serendipity" --separator " "
    trivet generate double -i INPUT0='[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]'
    """  # noqa: D301 - click reads the control character, and keeps the lines after it as they are
    # What talks to a server, when the command runs.
    from trivet_protocol_kserve_v2.cli.client import Client, ServerError  # noqa: PLC0415
    from trivet_protocol_kserve_v2.cli.exchange import describe  # noqa: PLC0415

    with Client(url, timeout_s, ca_certificate) as client:
        description = describe(client, model, model_version)
        document = _document(description, text, inputs, parameters)
        printer = _Printer(description.output_names, separator, as_json=as_json)
        try:
            for event in client.post_for_events(*description.path, "generate_stream", document=document):
                if "error" in event and "model_name" not in event:
                    raise ServerError(str(event["error"]))
                printer.show(event)
        finally:
            printer.end()


def _document(
    model: ModelDescription, text: str | None, inputs: Sequence[str], parameters: Sequence[str]
) -> dict[str, Any]:
    """The request. Raises :class:`click.UsageError` for what is no ``NAME=VALUE``, or text that has no place."""
    document: dict[str, Any] = {}
    if parameters:
        document["parameters"] = dict(key_and_value("--parameter", given, _KINDS) for given in parameters)
    for given in inputs:
        name, value = key_and_value("--input", given, _KINDS, "NAME")
        if name not in model.inputs:
            raise click.UsageError(
                f"--input {given}: model '{model.name}' has no input '{name}', it has {', '.join(model.inputs)}"
            )
        document[name] = value
    if text is not None:
        document[_text_input(model)] = text
    return document


def _text_input(model: ModelDescription) -> str:
    if "text_input" in model.inputs:
        return "text_input"
    names = [tensor.name for tensor in model.inputs.values() if tensor.datatype.name == "BYTES"]
    if len(names) != 1:
        raise click.UsageError(
            f"model '{model.name}' has {len(names)} inputs of text; give each with --input NAME=VALUE"
        )
    return names[0]


class _Printer:
    """Prints the outputs of responses."""

    def __init__(self, output_names: Sequence[str], separator: str, *, as_json: bool) -> None:
        self._output_names = frozenset(output_names)
        self._separator = separator
        self._as_json = as_json
        self._in_line = False

    def show(self, response: dict[str, Any]) -> None:
        outputs = {name: value for name, value in response.items() if name in self._output_names}
        values = list(outputs.values())
        if self._as_json or len(values) != 1 or not isinstance(values[0], str):
            self.end()
            click.echo(json.dumps(response if self._as_json else outputs, ensure_ascii=False))
        else:
            click.echo((self._separator if self._in_line else "") + values[0], nl=False)
            self._in_line = True

    def end(self) -> None:
        """Leave the cursor at the beginning of a line."""
        if self._in_line:
            click.echo()
        self._in_line = False
