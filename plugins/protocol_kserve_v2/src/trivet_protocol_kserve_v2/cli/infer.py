"""``trivet infer``: one inference from files, against a running server."""

from __future__ import annotations

from collections.abc import Sequence

import click

from trivet_protocol_kserve_v2.cli.options import server_options


@click.command(short_help="Run one inference on a running server, from JSON, .npy, image or text files.")
@click.argument("model")
@click.option(
    "--input",
    "-i",
    "files",
    multiple=True,
    metavar="[NAME=]FILE",
    help="An input from a file: .json (numbers or text; {name: value} for several), .npy, .npz, an image, .txt (an"
    " element per line), or any other file as the one element of a BYTES input. '-' is standard input as text. NAME may"
    " be left out where it is clear.",
)
@click.option("--text", "-t", "texts", multiple=True, metavar="[NAME=]TEXT", help="An element of a BYTES input.")
@click.option("--output", "-o", "outputs", multiple=True, metavar="NAME", help="Ask for this output only.")
@click.option("--classes", type=click.IntRange(min=1), metavar="N", help="Show the N top classes of each output.")
@click.option("--model-version", default="", metavar="N", help="Ask this version; the latest without it.")
@click.option(
    "--scaling",
    type=click.Choice(["none", "unit", "inception", "imagenet"]),
    help="Values of an image's pixels: none 0 to 255, unit 0 to 1, inception -1 to 1, imagenet with the mean and"
    " deviation of ImageNet.  [default: unit for floating-point inputs, else none]",
)
@click.option(
    "--resize",
    type=click.Choice(["stretch", "crop"]),
    default="stretch",
    show_default=True,
    help="How an image is made to fit: stretched, or scaled until it covers the input and cut at the middle.",
)
@click.option("--parameter", "-p", "parameters", multiple=True, metavar="KEY=VALUE", help="A request parameter.")
@click.option("--json", "as_json", is_flag=True, help="Print the response as JSON.")
@click.option("--save", metavar="FILE", help="Write outputs to FILE: .npy for one output, .npz for any number.")
@server_options
def infer(
    model: str,
    files: Sequence[str],
    texts: Sequence[str],
    outputs: Sequence[str],
    classes: int | None,
    model_version: str,
    scaling: str | None,
    resize: str,
    parameters: Sequence[str],
    as_json: bool,
    save: str | None,
    url: str,
    timeout_s: float,
    ca_certificate: str | None,
) -> None:
    """Run one inference on a running server.

    Files are turned into what the model's metadata asks for: pixels are resized and laid out, numbers get the datatype,
    and the batch dimension is added.

    \b
    trivet infer double -i numbers.json
    trivet infer image_classification -i cat.jpg --classes 3
    trivet infer text_embedding -t "A red panda" --save embedding.npy
    """  # noqa: D301 - click reads the control character, and keeps the lines after it as they are
    # numpy, and what reads files, when the command runs.
    from trivet_protocol_kserve_v2.cli.client import Client  # noqa: PLC0415
    from trivet_protocol_kserve_v2.cli.exchange import describe, run  # noqa: PLC0415
    from trivet_protocol_kserve_v2.cli.inputs import ImageOptions, read_inputs  # noqa: PLC0415
    from trivet_protocol_kserve_v2.cli.results import print_json, print_text, save_arrays  # noqa: PLC0415

    with Client(url, timeout_s, ca_certificate) as client:
        description = describe(client, model, model_version)
        inputs = read_inputs(description, files, texts, ImageOptions(scaling, resize == "crop"))
        result = run(client, description, inputs, outputs, classes, parameters)
    if save is not None:
        save_arrays(result, save)
    if as_json:
        print_json(result)
    elif save is None:
        print_text(result, classes)
