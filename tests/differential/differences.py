"""Where Trivet deliberately answers otherwise than Triton, and why: the one table.

Every case of the differential suite that does not get the same answer from both names its entry here, and fails once
the answers agree. ``docs/reference/differences.md`` is made of it::

    python tests/differential/differences.py > docs/reference/differences.md
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Difference:
    """One deliberate difference. The texts are Markdown, for users of either server."""

    transport: Literal["HTTP", "gRPC", "both", "models"]
    """``models``: it is not in the answer to one request, and a test with models of its own shows it."""
    subject: str
    triton: str
    trivet: str
    reason: str


DIFFERENCES: dict[str, Difference] = {
    "identity": Difference(
        "both",
        "Server metadata",
        "`triton`, its version, its extensions",
        "`trivet`, its version, the extensions it has",
        "It is another server. Clients that ask for an extension get a true answer.",
    ),
    "content type": Difference(
        "HTTP",
        "`Content-Type`",
        "Some errors, and empty bodies, are `text/plain`",
        "JSON is always `application/json`; an empty body has no type",
        "The errors are JSON. No known client relies on the wrong type.",
    ),
    "trace reason": Difference(
        "models",
        "Trace settings with a level and a `trace_count` of 0",
        "Refused without a reason",
        "Refused, and why",
        "The caller need not guess.",
    ),
    "traces of calls": Difference(
        "models",
        "A traced Python model calls another model without `trace=request.trace()`",
        "The call is not in the trace",
        "It is, where the model executes one request at a time and so it is clear for which it calls",
        "Models need not be changed to be traced.",
    ),
    "region message": Difference(
        "both",
        "A region of system shared memory that cannot be registered",
        "`Unable to open shared memory region: 'KEY'`, `Invalid shared memory region: 'KEY'`",
        "The same, and why: no such object, how large it is and how large it would have to be",
        "The caller need not guess.",
    ),
    "cuda region": Difference(
        "both",
        "A region of CUDA shared memory that cannot be registered",
        "400, `failed to register shared memory region: invalid args`; why is in the log alone",
        "The same and why; 503 where the server has no CUDA device",
        "The caller need not guess, and can tell its own mistakes from the server's lack of a GPU.",
    ),
    "region offset": Difference(
        "both",
        "A region of system shared memory that begins within a page, or whose request has no `offset`",
        "Refused (HTTP without `offset`: at random)",
        "Registered; without `offset` from the beginning",
        "Nothing is wrong with it.",
    ),
    "percent": Difference(
        "HTTP",
        "Percent-encoded paths",
        "Names are compared as they are encoded: `/v2/models/a%20b` is a model named `a%20b`",
        "Paths are decoded: it is `a b`",
        "RFC 3986. Names with `/`, blanks or letters beyond ASCII can be asked for.",
    ),
    "head": Difference("HTTP", "`HEAD`", "405", "As `GET`, without the body", "RFC 9110 asks for it; probes use it."),
    "header names": Difference(
        "HTTP",
        "Forwarded headers (`--http-header-forward-pattern`)",
        "Parameters are named as the client wrote the header, the pattern minds case, a repeated header is two",
        "Parameters are named in lower case, the pattern does not mind case, values of a repeated header are joined",
        "Header names have no case (RFC 9110), and HTTP/2 and HTTP/3 send them in lower case.",
    ),
    "duplicate key": Difference(
        "HTTP", "The same key twice in a JSON object", "The first counts", "The last counts", "As most JSON parsers do."
    ),
    "depth": Difference(
        "HTTP",
        "JSON nested more than about 1,000 deep",
        "Read",
        "500 `Nested too deeply`",
        "No tensor has so many dimensions, and the parser's stack is bounded.",
    ),
    "surrogate": Difference(
        "HTTP",
        "The second half of a surrogate pair (`\\udc00`) without the first",
        "Read, and encoded as if it were a character",
        "500, as for the first half without the second",
        "It is no text; what would be encoded is not UTF-8.",
    ),
    "inf": Difference(
        "HTTP",
        "`Inf` as a JSON number",
        "Infinity",
        "500, as for any other word; `Infinity` is read",
        "Triton itself writes `Infinity`.",
    ),
    "nul": Difference(
        "HTTP",
        "`\\u0000` in an id or in the name of a parameter",
        "The text ends there; a parameter is then not found (500)",
        "A character like any other",
        "The text ends nowhere in JSON.",
    ),
    "compressed": Difference(
        "HTTP",
        "A compressed body that is damaged or ends early",
        "What could be decompressed is taken for the body",
        "400 `failed to decompress the request body`",
        "The client learns what was wrong.",
    ),
    "overflow": Difference(
        "both",
        "Shapes whose size does not fit 64 bits",
        "Sizes wrap around; the message names the wrapped one, or the request reaches the model",
        "400 with the true size",
        "Nothing that does not fit is let through.",
    ),
    "string end": Difference(
        "both",
        "A string tensor whose last element ends early",
        "The model runs, its backend refuses the tensor",
        "The same message with the request's id in front, before the model runs",
        "A malformed request costs no execution.",
    ),
    "required input": Difference(
        "models",
        "A request that leaves out a required input and gives an optional one",
        "Only counted: the request reaches the model without the input",
        "400 naming the input",
        "A malformed request costs no execution.",
    ),
    "batch of none": Difference(
        "models",
        "A batch of size 0 with the data of one entry",
        "The request reaches the model as if it had no batch dimension",
        "400",
        "A batch with others would take rows from them.",
    ),
    "unknown code": Difference(
        "both",
        "A Python model fails with `TritonError.UNKNOWN`",
        "400 (gRPC: `UNKNOWN`)",
        "500 (gRPC: `INTERNAL`)",
        "The model failed; the request was not at fault.",
    ),
    "load reasons": Difference(
        "both",
        "A load request with a configuration that is no JSON or no configuration",
        "500 `failed to poll from model repository`; the reason is in the server's log",
        "400 with file, field and reason",
        "The client can mend it.",
    ),
    "load again": Difference(
        "both",
        "Loading a model that was loaded with another configuration (`config`), now without",
        "Nothing happens until the model's files change",
        "The repository's configuration is back",
        "The request says which configuration it wants.",
    ),
    "load parameter": Difference(
        "HTTP",
        "A load request with a parameter that does not exist, or a file that is not base64",
        "500 `unexpected error on creating Triton parameter`; what is not base64 is skipped",
        "500 naming the parameter; 400 `not valid base64`",
        "The client can mend it.",
    ),
    "generate status": Difference(
        "HTTP",
        "`generate` and `generate_stream`: the status where a model fails, or does not give the one response of"
        " `generate`",
        "400 for any error that comes first; 200 for what is not one response",
        "The status that `infer` has for the error; 500 for what is not one response. The bodies are the same",
        "A client that looks at the status does not take an error for an answer, and knows what it may try again.",
    ),
    "generate headers": Difference(
        "HTTP",
        "`generate` and `generate_stream`: forwarded headers (`--http-header-forward-pattern`)",
        "Not forwarded",
        "Forwarded, as for `infer`",
        "The option is said to be for inference requests, which these are.",
    ),
    "unload body": Difference(
        "HTTP",
        "An unload request with a body that is no JSON",
        "The model is unloaded",
        "The error, and the model stays",
        "What is not understood is not done.",
    ),
    "stream of nonsense": Difference(
        "gRPC",
        "A message on a stream that cannot be parsed",
        "The stream ends with `OK`, as if the client had finished",
        "`INTERNAL`, `Unable to parse request`, as for a call of one message",
        "The client learns that requests were lost.",
    ),
    "refusal ends the call": Difference(
        "gRPC",
        "A request on a stream that is refused before it reaches a model, with the metadata `triton_grpc_error: true`",
        "`error_message` on the stream; the server process ends when a request follows",
        "The call ends with the status, as for an error of the model",
        "It is what the metadata asks for.",
    ),
    "idle time": Difference(
        "models",
        "`max_sequence_idle_microseconds`",
        "Counts from the arrival of a sequence's last request, also while that waits for a slot or is executed",
        "Counts from when a sequence has no request that waits or is executed",
        "As the configuration's documentation has it. A client that sends the next request after an answer can do so.",
    ),
    "ensemble reload": Difference(
        "models",
        "An ensemble that does not load",
        "The repository index gives no reason; one that served before is unloaded",
        "The index gives the reason; what served before serves on, as with every other model",
        "A slip in a configuration should not take a model out of service.",
    ),
    "ensemble order": Difference(
        "models",
        "The responses of an ensemble with a decoupled model, where steps behind it have several instances",
        "In the order in which they are ready",
        "In the order of the responses that they are made of",
        "Nothing in a response tells its place.",
    ),
    "ensemble failures": Difference(
        "models",
        "`fail` in the statistics of an ensemble",
        "Counts a request that failed in a step twice",
        "Counts it once",
        "It is one request.",
    ),
    "string corrid": Difference(
        "models",
        "A control input of datatype `TYPE_STRING` for the correlation ID, in a model of the Python backend",
        "`unexpected number of string elements` for most IDs",
        "The ID",
        "It is what the configuration asks for.",
    ),
    "classes of text": Difference(
        "both",
        "Classification of a `BYTES` output",
        "The server process ends",
        "400 `class result not available for output due to unsupported type 'BYTES'`",
        "As Triton does for other datatypes without an order.",
    ),
    "error counts": Difference(
        "models",
        "A request that a Python model answers with an error, in statistics and metrics",
        "Counts as a success",
        "Counts as a failure, of the reason `BACKEND`",
        "Its caller got an error; an alert on failures should see it.",
    ),
    "rejections count": Difference(
        "models",
        "A request that is refused because its model's queue is full, in statistics and metrics",
        "Counts nowhere",
        "Counts as a failure, of the reason `REJECTED`",
        "It is what an operator has to know of overload.",
    ),
    "response statistics": Difference(
        "models",
        "`response_stats` of a decoupled Python model",
        "Empty: its Python backend reports none",
        "By the place of the response in the stream",
        "The extension has them.",
    ),
    "resource without a size": Difference(
        "models",
        "A resource that `--rate-limit-resource` does not name, where it names another",
        "There is none of it, and a model that wants it does not load",
        "There is as much as the instance wants that wants most, as without the option",
        "So the user guide has it: what is given replaces the default of that resource.",
    ),
    "only passive": Difference(
        "models",
        "A request for a model whose instances are all `passive`",
        "The server process ends",
        "503 `model 'm' has no instance that takes requests`",
        "A request costs nobody else anything.",
    ),
    "turns of before": Difference(
        "models",
        "An instance that competes for a resource after it had nothing to do for a while",
        "Goes first until it has had as many turns as the others since the server started",
        "Starts level with the others",
        "Nobody waits for turns that somebody else had no use for.",
    ),
    "wrong host policy": Difference(
        "models",
        "A `--host-policy` that is malformed",
        "A model that uses it does not load; single cores (`cpu-cores=3`) are malformed",
        "The server does not start; single cores may be given",
        "The operator learns at once.",
    ),
    "cached error": Difference(
        "models",
        "A model with a response cache answers with an error",
        "Remembered, and given to the next as a success without outputs",
        "Not remembered",
        "The next is asked for an answer too.",
    ),
    "cached outputs": Difference(
        "models",
        "A cached response, asked for with other `outputs`",
        "The outputs that the first request asked for",
        "Executed",
        "A caller gets what it asked for.",
    ),
    "cached shape": Difference(
        "models",
        "A cached response to the same bytes in another shape or datatype",
        "The response to the first",
        "Executed",
        "The answer is another one.",
    ),
    "cached parameters": Difference(
        "models",
        "A cached response to the same inputs with other parameters",
        "The response to the first",
        "Executed; `priority` and `timeout` do not count",
        "A Python model reads them.",
    ),
    "cached sequence": Difference(
        "models",
        "A request with a `sequence_id` to a model with a response cache",
        "Answered from the cache",
        "Executed",
        "A response within a sequence depends on what came before.",
    ),
    "cached model": Difference(
        "models",
        "A model that was changed and loaded again",
        "Cached responses of the model of before are given",
        "They are not",
        "It may answer otherwise; configuration and files are part of the key.",
    ),
    "responses again": Difference(
        "models",
        "Iterating a second time over the responses of `exec(decoupled=True)`",
        "All of them once more: they are kept",
        "Nothing",
        "A long stream would fill the memory. `list(responses)` keeps them.",
    ),
    "error in a stream": Difference(
        "models",
        "A called model sends an error that is not its last response",
        "The error is lost, the iteration goes on",
        "The error is a response of the iteration",
        "Nothing is lost.",
    ),
    "code of a called model": Difference(
        "models",
        "The code of an error that another model answers with (`response.error().code()`)",
        "Always `INTERNAL`",
        "The code of the other model, or of the refusal (`NOT_FOUND`, `INVALID_ARG`, ...)",
        "The calling model can tell what happened, and hand it on.",
    ),
    "shapes out of order": Difference(
        "models",
        "Requests of different shapes in the queue of `dynamic_batching`",
        "A batch ends at the first request that does not fit",
        "It is filled with those behind that fit; the oldest request is always in the next batch",
        "Traffic of mixed shapes is batched too, and nobody waits longer for it.",
    ),
}


def render() -> str:
    """The table as a page of the documentation."""
    lines = [
        "# Differences from Triton",
        "",
        "Trivet answers as Triton 2.51 does, status and message, for every request of the differential suite",
        "(`tests/differential`), except where this table says otherwise. The suite fails when the table is not true.",
        "",
        "| Where | What | Triton | Trivet | Why |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {d.transport} | {d.subject} | {d.triton} | {d.trivet} | {d.reason} |" for d in DIFFERENCES.values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
