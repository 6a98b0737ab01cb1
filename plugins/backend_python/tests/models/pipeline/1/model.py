import asyncio

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Calls another model, twice at a time."""

    async def execute(self, requests):
        responses = []
        for request in requests:
            model = pb_utils.get_input_tensor_by_name(request, "MODEL")
            name = "add_sub" if model is None else model.as_numpy()[0, 0].decode()
            inputs = [pb_utils.get_input_tensor_by_name(request, f"INPUT{index}") for index in range(2)]
            calls = [
                pb_utils.InferenceRequest(
                    model_name=name, requested_output_names=["OUTPUT0"], inputs=inputs
                ).async_exec()
                for _ in range(2)
            ]
            results = await asyncio.gather(*calls)
            failed = [result for result in results if result.has_error()]
            if failed:
                responses.append(pb_utils.InferenceResponse(error=failed[0].error()))
                continue
            first, second = (pb_utils.get_output_tensor_by_name(result, "OUTPUT0").as_numpy() for result in results)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", first + second)]))
        return responses
