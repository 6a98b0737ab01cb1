"""Read one line of text:  python examples/clients/read_text_line.py examples/samples/text_line.png"""

import tritonclient.http as triton
from PIL import Image
from processing import arguments, ctc_text, text_pixels

args = arguments(__doc__, "image")
pixels = text_pixels(Image.open(args.image))
line = triton.InferInput("x", pixels.shape, "FP32").set_data_from_numpy(pixels)
with triton.InferenceServerClient(args.url) as client:
    characters = client.get_model_config("text_recognition")["parameters"]["character"]["string_value"]
    scores = client.infer("text_recognition", [line]).as_numpy("fetch_name_0")
print(ctc_text(scores[0], characters))
