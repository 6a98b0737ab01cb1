"""Tell the types of files by their content:  python examples/clients/identify_file.py examples/samples/* Makefile"""

from pathlib import Path

import tritonclient.http as triton
from processing import arguments, file_features

args = arguments(__doc__, "files", nargs="+")
best = triton.InferRequestedOutput("target_label", class_count=1)
with triton.InferenceServerClient(args.url) as client:
    for file in args.files:
        features = file_features(Path(file).read_bytes())
        content = triton.InferInput("bytes", features.shape, "INT32").set_data_from_numpy(features)
        result = client.infer("file_type", [content], outputs=[best])
        score, _, label = result.as_numpy("target_label")[0][0].decode().split(":")
        print(f"{file}: {label} ({float(score):.3f})")
