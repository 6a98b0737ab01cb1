"""Name what a photograph shows:  python examples/clients/classify_image.py examples/samples/flower.jpg"""

import tritonclient.http as triton  # tritonclient.grpc has the same names; the server's gRPC port is 8001
from processing import arguments, imagenet_pixels

args = arguments(__doc__, "image")
pixels = imagenet_pixels(args.image)
image = triton.InferInput("image", pixels.shape, "FP32").set_data_from_numpy(pixels)
top = triton.InferRequestedOutput("probabilities", class_count=5)
with triton.InferenceServerClient(args.url) as client:
    result = client.infer("image_classification", [image], outputs=[top])
for entry in result.as_numpy("probabilities")[0]:
    probability, _, label = entry.decode().split(":")
    print(f"{float(probability):.3f}  {label}")
