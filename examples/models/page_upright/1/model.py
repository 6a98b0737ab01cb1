import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Turns the lines that are upside down, each within its own width."""

    def execute(self, requests):
        return [self.turn(request) for request in requests]

    def turn(self, request):
        lines, widths, orientation = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("lines", "widths", "orientation")
        )
        upright = lines.copy()
        for index in (orientation[:, 1] > orientation[:, 0]).nonzero()[0]:
            upright[index, :, :, : widths[index]] = lines[index, :, ::-1, : widths[index]][:, :, ::-1]
        return pb_utils.InferenceResponse([pb_utils.Tensor("upright", upright)])
