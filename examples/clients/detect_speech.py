"""Tell when somebody speaks:  python examples/clients/detect_speech.py examples/samples/Front_Center.wav"""

import numpy as np
import tritonclient.http as triton
from processing import arguments, runs, speech_windows

args = arguments(__doc__, "recording")
rate = triton.InferInput("sr", [1], "INT64").set_data_from_numpy(np.array([16000]))
state = np.zeros((2, 1, 128), np.float32)  # the model's memory: each answer brings the one for the next window
probabilities = []
with triton.InferenceServerClient(args.url) as client:
    for window in speech_windows(args.recording):
        sound = triton.InferInput("input", [1, 576], "FP32").set_data_from_numpy(window[np.newaxis])
        memory = triton.InferInput("state", state.shape, "FP32").set_data_from_numpy(state)
        result = client.infer("voice_activity", [sound, memory, rate])
        state = result.as_numpy("stateN")
        probabilities.append(result.as_numpy("output")[0, 0])
spoken = runs(np.array(probabilities) > 0.5)
print(", ".join(f"{start * 0.032:.2f} s to {stop * 0.032:.2f} s" for start, stop in spoken) or "nobody speaks")
