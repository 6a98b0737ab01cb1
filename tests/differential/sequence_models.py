"""Models that answer with what they were shown of a sequence, under each configuration of sequence batching."""

from __future__ import annotations

MODEL = '''
import json
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers with what it was given of the whole batch; x: how many ms it takes, negative for a failure.

    A file beside it tells that it has begun what takes time.
    """

    def execute(self, requests):
        rows, responses = [], []
        for request in requests:
            given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            x = given.pop("X")
            row = {name: [str(a.dtype), list(a.shape), str(a.ravel().tolist())] for name, a in given.items()}
            # Of a row that fills a slot, the data mean nothing.
            row["X"] = [list(x.shape), request.requested_output_names() and x.ravel().tolist()]
            row["request"] = [request.request_id(), request.correlation_id(), request.flags()]
            rows.append(row)
        times = [row["X"][1][0] for row in rows if row["X"][1]]
        if max([0, *times]):
            Path(__file__).with_name("begun").touch()
            time.sleep(max(times) / 1000)
        for row in rows:
            row["X"][1] = row["X"][1] and row["X"][1][0]
            row["X"][1] = row["X"][1] or None
        text = np.array([json.dumps(rows).encode()], dtype=np.object_)
        batched = len(rows[0]["X"][0]) > 1
        for row in rows:
            if (row["X"][1] or 0) < 0:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("no negative numbers")))
            else:
                output = pb_utils.Tensor("Y", text.reshape(1, 1) if batched else text)
                responses.append(pb_utils.InferenceResponse([output]))
        return responses
'''
CONFIG = """
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "X" data_type: TYPE_INT32 dims: [ {dims} ] }} ]
output [ {{ name: "Y" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
sequence_batching {{ {batching} {controls} }}
"""
CONTROLS = """
control_input [
  {{ name: "START" control {{ kind: CONTROL_SEQUENCE_START {start} }} }},
  {{ name: "END" control {{ kind: CONTROL_SEQUENCE_END {end} }} }},
  {{ name: "READY" control {{ kind: CONTROL_SEQUENCE_READY {ready} }} }},
  {{ name: "CORRID" control {{ kind: CONTROL_SEQUENCE_CORRID data_type: {id} }} }}
]
"""
FP32, INT32, BOOL = "fp32_false_true: [ 0, 1 ]", "int32_false_true: [ -3, 5 ]", "bool_false_true: [ false, true ]"


def config(batching: str, *controls: str, max_batch_size: int = 4, dims: int = 1, instances: int = 1) -> str:
    start, end, ready, id = controls or (FP32, INT32, BOOL, "TYPE_UINT64")
    return CONFIG.format(
        batching=batching,
        controls=CONTROLS.format(start=start, end=end, ready=ready, id=id),
        max_batch_size=max_batch_size,
        dims=dims,
        instances=instances,
    )


IDLE = "max_sequence_idle_microseconds: 1500000"
LONG = "max_sequence_idle_microseconds: 60000000"
MODELS = {
    "direct": config(f"direct {{}} {LONG}"),
    "idle": config(f"direct {{}} {IDLE}"),
    "delayed": config(
        f"direct {{ max_queue_delay_microseconds: 500000 minimum_slot_utilization: 0.6 }} {LONG}",
        *(BOOL, FP32, INT32, "TYPE_INT32"),
    ),
    "shapes": config(f"direct {{ max_queue_delay_microseconds: 300000 minimum_slot_utilization: 1 }} {LONG}", dims=-1),
    "two": config(f"direct {{}} {LONG}", instances=2, max_batch_size=2),
    "plain": config(LONG, INT32, BOOL, FP32, "TYPE_UINT32"),
    "oldest": config(f"oldest {{ max_candidate_sequences: 3 }} {LONG}", BOOL, BOOL, BOOL, "TYPE_INT64"),
    "preferred": config(
        "oldest { max_candidate_sequences: 8 preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 400000"
        f" preserve_ordering: true }} {LONG}",
    ),
    "waiting": config(f"oldest {{ max_candidate_sequences: 1 }} {IDLE}"),
    "text": config(f"oldest {{}} {LONG}", FP32, FP32, FP32, "TYPE_STRING"),
    "unbatched": config(LONG, max_batch_size=0),
    "stateful": config(
        LONG
        + """
        state [
          {
            input_name: "ZERO" output_name: "A" data_type: TYPE_FP32 dims: [ 2, 1 ]
            initial_state { name: "i" data_type: TYPE_FP32 dims: [ 2, 1 ] zero_data: true }
          },
          {
            input_name: "FILE" output_name: "B" data_type: TYPE_INT32 dims: [ 3 ]
            initial_state { name: "i" data_type: TYPE_INT32 dims: [ 3 ] data_file: "numbers" }
          },
          {
            input_name: "EMPTY" output_name: "C" data_type: TYPE_STRING dims: [ 2 ]
            initial_state { name: "i" data_type: TYPE_STRING dims: [ 2 ] zero_data: true }
          },
          {
            input_name: "VARIABLE" output_name: "D" data_type: TYPE_INT64 dims: [ -1 ]
            initial_state { name: "i" data_type: TYPE_INT64 dims: [ 1 ] zero_data: true }
          }
        ]
        """
    ),
    "bare": CONFIG.format(max_batch_size=4, dims=1, instances=1, batching=LONG, controls=""),
    "iterative": config(f"iterative_sequence: true {LONG}"),
}
