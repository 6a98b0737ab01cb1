"""Find the faces in a picture:  python examples/clients/find_faces.py examples/samples/grace_hopper.jpg"""

from pathlib import Path

import numpy as np
import tritonclient.http as triton
from processing import arguments

args = arguments(__doc__, "image")
content = np.array([Path(args.image).read_bytes()], np.object_)
image = triton.InferInput("image", content.shape, "BYTES").set_data_from_numpy(content)
with triton.InferenceServerClient(args.url) as client:
    answer = client.infer("face_detector", [image])
boxes, probabilities, landmarks = (answer.as_numpy(name) for name in ("boxes", "probabilities", "landmarks"))
for box, probability, points in zip(boxes.round(), probabilities, landmarks.round(), strict=True):
    left, top, right, bottom = box
    eyes = " and ".join(f"{x:.0f},{y:.0f}" for x, y in points[:2])
    print(f"{probability:.3f}  {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f}, eyes at {eyes}")
if not len(boxes):
    print("no face")
