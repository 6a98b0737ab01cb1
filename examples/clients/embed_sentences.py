"""Compare sentences by meaning:  python examples/clients/embed_sentences.py "A happy person" "A happy dog" Rain"""

import numpy as np
import tritonclient.http as triton
from processing import arguments

args = arguments(__doc__, "sentences", nargs="+")
sentences = np.array([[sentence.encode()] for sentence in args.sentences], dtype=object)
text = triton.InferInput("text", sentences.shape, "BYTES").set_data_from_numpy(sentences)
with triton.InferenceServerClient(args.url) as client:
    embeddings = client.infer("text_embedding", [text]).as_numpy("embedding")
for sentence, cosine in zip(args.sentences, embeddings @ embeddings[0], strict=True):
    print(f"{cosine:.2f}  {sentence}")
