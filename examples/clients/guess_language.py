"""Tell in which language a program is written:  python examples/clients/guess_language.py Makefile mkdocs.yml"""

from pathlib import Path

import numpy as np
import tritonclient.http as triton
from processing import arguments

args = arguments(__doc__, "files", nargs="+")
best = triton.InferRequestedOutput("scores", class_count=1)
with triton.InferenceServerClient(args.url) as client:
    for file in args.files:
        text = np.array([[Path(file).read_bytes()]], np.object_)
        content = triton.InferInput("inputs", text.shape, "BYTES").set_data_from_numpy(text)
        result = client.infer("programming_language", [content], outputs=[best])
        score, _, language = result.as_numpy("scores")[0][0].decode().split(":")
        print(f"{file}: {language} ({float(score):.3f})")
