"""Tell when somebody speaks, the server remembering:  python examples/clients/hear_speech.py RECORDING.wav"""

import uuid

import numpy as np
import tritonclient.http as triton
from processing import arguments, runs, speech_windows

args = arguments(__doc__, "recording")
windows = speech_windows(args.recording)[:, 64:]  # only what is new: the server has the samples before them
speaker, last, probabilities = str(uuid.uuid4()), len(windows) - 1, []
with triton.InferenceServerClient(args.url) as client:
    for number, window in enumerate(windows):
        samples = triton.InferInput("samples", [1, 512], "FP32").set_data_from_numpy(window[np.newaxis])
        place = {"sequence_id": speaker, "sequence_start": number == 0, "sequence_end": number == last}
        probabilities.append(client.infer("voice_activity_stream", [samples], **place).as_numpy("speech")[0, 0])
spoken = runs(np.array(probabilities) > 0.5)
print(", ".join(f"{start * 0.032:.2f} s to {stop * 0.032:.2f} s" for start, stop in spoken) or "nobody speaks")
