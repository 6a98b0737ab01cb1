"""Runs the case that it is asked for, and answers with what it found. The cases are the functions of ``cases.py``."""

import inspect

import cases
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.args = args

    async def execute(self, requests):
        return [await self.answer(request) for request in requests]

    async def answer(self, request):
        case = pb_utils.get_input_tensor_by_name(request, "CASE").as_numpy()[0].decode()
        try:
            found = getattr(cases, case)()
            if inspect.isawaitable(found):
                found = await found
        except Exception as error:  # noqa: BLE001 - what it is, is the answer
            found = [f"raised {type(error).__name__}: {error}"]
        return pb_utils.InferenceResponse([pb_utils.Tensor("RESULT", np.array(found, dtype=object))])
