"""Where Trivet deliberately answers differently from Triton, and why: the one table.

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
        "Refused with the reason",
        "The client need not guess.",
    ),
    "traces of calls": Difference(
        "models",
        "A traced Python model calls another model without `trace=request.trace()`",
        "The call is not in the trace",
        "It is, if the model executes one request at a time, so that it is clear which request the call belongs to",
        "Models need not be changed to be traced.",
    ),
    "region message": Difference(
        "both",
        "A region of system shared memory that cannot be registered",
        "`Unable to open shared memory region: 'KEY'`, `Invalid shared memory region: 'KEY'`",
        "The same, and the reason: no such object, or its size and the size that is needed",
        "The client need not guess.",
    ),
    "cuda region": Difference(
        "both",
        "A region of CUDA shared memory that cannot be registered",
        "400, `failed to register shared memory region: invalid args`; the reason is only in the log",
        "The same, and the reason; 503 if the server has no CUDA device",
        "The client need not guess, and can tell its own mistakes from the server's lack of a GPU.",
    ),
    "region offset": Difference(
        "both",
        "A region of system shared memory whose offset is not a multiple of the page size, or is left out",
        "Refused (HTTP without `offset`: at random)",
        "Registered; without `offset`, the region begins at 0",
        "Nothing is wrong with it.",
    ),
    "percent": Difference(
        "HTTP",
        "Percent-encoded paths",
        "Names are not decoded: `/v2/models/a%20b` is a model named `a%20b`",
        "Paths are decoded: it is `a b`",
        "RFC 3986. Names may contain `/`, spaces and letters beyond ASCII.",
    ),
    "head": Difference("HTTP", "`HEAD`", "405", "As `GET`, without the body", "RFC 9110 requires it; probes use it."),
    "header names": Difference(
        "HTTP",
        "Forwarded headers (`--http-header-forward-pattern`)",
        "Parameters keep the client's spelling, the pattern is case-sensitive, a repeated header is two parameters",
        "Parameters are in lower case, the pattern ignores case, values of a repeated header are joined",
        "Header names are case-insensitive (RFC 9110), and HTTP/2 and HTTP/3 send them in lower case.",
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
        "It is not valid text, and cannot be encoded as UTF-8.",
    ),
    "inf": Difference(
        "HTTP",
        "`Inf` as a JSON number",
        "Infinity",
        "500, as for any other word; `Infinity` is accepted",
        "Triton itself writes `Infinity`.",
    ),
    "nul": Difference(
        "HTTP",
        "`\\u0000` in an id or in the name of a parameter",
        "The text ends there; a parameter is then not found (500)",
        "A character like any other",
        "It does not end a string in JSON.",
    ),
    "compressed": Difference(
        "HTTP",
        "A compressed body that is damaged or ends early",
        "The part that could be decompressed is taken as the body",
        "400 `failed to decompress the request body`",
        "The client learns what was wrong.",
    ),
    "overflow": Difference(
        "both",
        "Shapes whose size does not fit 64 bits",
        "Sizes wrap around; the message has the wrapped size, or the request reaches the model",
        "400 with the true size",
        "No request passes with a wrong size.",
    ),
    "string end": Difference(
        "both",
        "A string tensor whose last element ends early",
        "The model runs, and its backend refuses the tensor",
        "The same message, preceded by the request's id, before the model runs",
        "A malformed request costs no execution.",
    ),
    "required input": Difference(
        "models",
        "A request that leaves out a required input and gives an optional one",
        "Only the number of inputs is checked, so the request reaches the model without the input",
        "400 naming the input",
        "A malformed request costs no execution.",
    ),
    "batch of none": Difference(
        "models",
        "A batch of size 0 with the data of one entry",
        "The request reaches the model as if it had no batch dimension",
        "400",
        "In a batch with other requests it would take their rows.",
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
        "A load request with a configuration that is not valid JSON or not a valid configuration",
        "500 `failed to poll from model repository`; the reason is in the server's log",
        "400 with file, field and reason",
        "The client can correct it.",
    ),
    "load again": Difference(
        "both",
        "Loading a model without `config` that was loaded with one before",
        "Nothing happens until the model's files change",
        "The model is loaded with the repository's configuration",
        "The request says which configuration it wants.",
    ),
    "load parameter": Difference(
        "HTTP",
        "A load request with a parameter that does not exist, or a file that is not base64",
        "500 `unexpected error on creating Triton parameter`; characters that are not base64 are skipped",
        "500 naming the parameter; 400 `not valid base64`",
        "The client can correct it.",
    ),
    "generate status": Difference(
        "HTTP",
        "`generate` and `generate_stream`: the status if a model fails, or does not send exactly one response to"
        " `generate`",
        "400 if the first response is an error; 200 if there is not exactly one response",
        "The status that `infer` has for the error; 500 if there is not exactly one response. The bodies are the same",
        "A client that looks at the status does not mistake an error for an answer, and knows what it may retry.",
    ),
    "generate headers": Difference(
        "HTTP",
        "`generate` and `generate_stream`: forwarded headers (`--http-header-forward-pattern`)",
        "Not forwarded",
        "Forwarded, as for `infer`",
        "The option is documented to apply to inference requests, which these are.",
    ),
    "unload body": Difference(
        "HTTP",
        "An unload request with a body that is not valid JSON",
        "The model is unloaded",
        "An error, and the model stays",
        "A request that is not understood should not be carried out.",
    ),
    "stream of nonsense": Difference(
        "gRPC",
        "A message on a stream that cannot be parsed",
        "The stream ends with `OK`, as if the client had finished",
        "`INTERNAL`, `Unable to parse request`, as for a unary call",
        "The client learns that requests were lost.",
    ),
    "refusal ends the call": Difference(
        "gRPC",
        "A request on a stream that is refused before it reaches a model, with the metadata `triton_grpc_error: true`",
        "`error_message` on the stream; the server process crashes at the next request",
        "The call ends with the status, as for an error of the model",
        "It is what the metadata asks for.",
    ),
    "idle time": Difference(
        "models",
        "`max_sequence_idle_microseconds`",
        "Counts from the arrival of a sequence's last request, even while that waits for a slot or is executed",
        "Counts from when a sequence has no request that waits or is executed",
        "As the schema documents it. A client that sends its next request after each answer keeps its sequence.",
    ),
    "ensemble reload": Difference(
        "models",
        "An ensemble that does not load",
        "The repository index has no reason; an ensemble that served before is unloaded",
        "The index has the reason; an ensemble that served before continues to serve, like every other model",
        "A mistake in a configuration should not take a model out of service.",
    ),
    "failed version": Difference(
        "models",
        "A version that failed to load, and is no longer there when its model is loaded without an error",
        "The repository index shows the failure, and a server with strict readiness is not ready, until another"
        " version of this number loads",
        "The version is `unloaded`, and the server is ready",
        "What was mended is no reason to restart a server.",
    ),
    "ensemble order": Difference(
        "models",
        "The responses of an ensemble with a decoupled model, if later steps have several instances",
        "In the order in which they are ready",
        "In the order of the decoupled model's responses",
        "A response does not say which position it has.",
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
        "The server process crashes",
        "400 `class result not available for output due to unsupported type 'BYTES'`",
        "As Triton answers for other datatypes that cannot be ordered.",
    ),
    "error counts": Difference(
        "models",
        "A request that a Python model answers with an error, in statistics and metrics",
        "Counts as a success",
        "Counts as a failure with the reason `BACKEND`",
        "The client got an error; an alert on failures should see it.",
    ),
    "rejections count": Difference(
        "models",
        "A request that is refused because its model's queue is full, in statistics and metrics",
        "Is not counted",
        "Counts as a failure with the reason `REJECTED`",
        "It is how an operator sees overload.",
    ),
    "response statistics": Difference(
        "models",
        "`response_stats` of a decoupled Python model",
        "Empty: the Python backend does not report them",
        "By the position of the response in the stream",
        "They are part of the statistics extension.",
    ),
    "resource without a size": Difference(
        "models",
        "A resource that `--rate-limit-resource` does not name, if it names another",
        "There is none of it, and a model that needs it does not load",
        "There is as much as the most demanding instance needs, as without the option",
        "As in the user guide: the option replaces the default of the resource that it names.",
    ),
    "only passive": Difference(
        "models",
        "A request for a model whose instances are all `passive`",
        "The server process crashes",
        "503 `model 'm' has no instance that takes requests`",
        "A request must not harm other requests.",
    ),
    "turns of before": Difference(
        "models",
        "An instance that competes for a resource after it was idle for a while",
        "Goes first until it has had as many turns as the others since the server started",
        "Starts on a par with the others",
        "Others need not wait for turns that an instance did not use.",
    ),
    "wrong host policy": Difference(
        "models",
        "A `--host-policy` that is malformed",
        "A model that uses it does not load; a single core (`cpu-cores=3`) is malformed",
        "The server does not start; a single core is accepted",
        "The operator finds out at once.",
    ),
    "cached error": Difference(
        "models",
        "A model with a response cache answers with an error",
        "The error is cached, and the next request gets a success without outputs",
        "The error is not cached",
        "The next request may succeed.",
    ),
    "cached outputs": Difference(
        "models",
        "A request that equals a cached one except for the requested `outputs`",
        "Gets the outputs that the first request asked for",
        "Is executed",
        "A client gets what it asked for.",
    ),
    "cached shape": Difference(
        "models",
        "A request that equals a cached one in the bytes of its inputs, but not in their shape or datatype",
        "Gets the cached response",
        "Is executed",
        "Its response may differ.",
    ),
    "cached parameters": Difference(
        "models",
        "A request that equals a cached one except for its parameters",
        "Gets the cached response",
        "Is executed; `priority` and `timeout` do not count",
        "Python models can read parameters.",
    ),
    "cached sequence": Difference(
        "models",
        "A request with a `sequence_id` to a model with a response cache",
        "May be answered from the cache",
        "Is executed",
        "A response within a sequence depends on earlier requests.",
    ),
    "cached model": Difference(
        "models",
        "A model with a response cache that was changed and reloaded",
        "Answers with cached responses of the old model",
        "Does not: configuration and files are part of the key",
        "The new model may answer differently.",
    ),
    "responses again": Difference(
        "models",
        "Iterating a second time over the responses of `exec(decoupled=True)`",
        "Yields all of them again, since they are kept",
        "Yields nothing",
        "A long stream would fill the memory. `list(responses)` keeps them.",
    ),
    "error in a stream": Difference(
        "models",
        "A called model sends an error that is not its last response",
        "The error is lost, and the iteration goes on",
        "The iteration yields the error as a response",
        "No error is lost.",
    ),
    "code of a called model": Difference(
        "models",
        "The code of an error that another model answers with (`response.error().code()`)",
        "Always `INTERNAL`",
        "The code of the other model, or of the refusal (`NOT_FOUND`, `INVALID_ARG`, ...)",
        "The calling model can tell what happened, and pass the code on.",
    ),
    "shapes out of order": Difference(
        "models",
        "Requests of different shapes in the queue of `dynamic_batching`",
        "A batch ends at the first request that does not fit",
        "It is filled with later ones that fit; the oldest request is always in the next batch",
        "Mixed shapes are batched too, and no request waits longer for it.",
    ),
}


def render() -> str:
    """The table as a page of the documentation."""
    lines = [
        "# Differences from Triton",
        "",
        "For every request of the differential suite (`tests/differential`), Trivet answers with the status and",
        "message of Triton 2.51, except where this table says otherwise. The suite fails if the table is not true.",
        "",
        "The first column says where the difference shows: in answers over HTTP, gRPC or both, or in what models do.",
        "",
        "| Where | What | Triton | Trivet | Why |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {d.transport} | {d.subject} | {d.triton} | {d.trivet} | {d.reason} |" for d in DIFFERENCES.values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
