"""Find, turn and read the lines of a page:  python examples/clients/read_page.py examples/samples/text_page.png"""

from typing import Any

import tritonclient.http as triton
from numpy.typing import NDArray
from PIL import Image
from processing import Floats, arguments, ctc_text, orientation_pixels, page_pixels, text_boxes, text_pixels

ORIENTATION = "save_infer_model/scale_0.tmp_1"


def infer(model: str, pixels: Floats, output: str, class_count: int = 0) -> NDArray[Any]:
    x = triton.InferInput("x", pixels.shape, "FP32").set_data_from_numpy(pixels)
    requested = triton.InferRequestedOutput(output, class_count=class_count)
    answer: NDArray[Any] = client.infer(model, [x], outputs=[requested]).as_numpy(output)[0]
    return answer


args = arguments(__doc__, "image")
page = Image.open(args.image).convert("RGB")
with triton.InferenceServerClient(args.url) as client:
    characters = client.get_model_config("text_recognition")["parameters"]["character"]["string_value"]
    score_map = infer("text_detection", page_pixels(page), "fetch_name_0")[0]
    for box in text_boxes(score_map):
        line = page.crop(box)
        (orientation,) = infer("text_orientation", orientation_pixels(line), ORIENTATION, class_count=1)
        if orientation.decode().endswith("upside down"):
            line = line.rotate(180)
        print(ctc_text(infer("text_recognition", text_pixels(line), "fetch_name_0"), characters))
