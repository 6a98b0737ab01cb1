"""PyTorch as a backend of Trivet (``backend: "pytorch"``, ``platform: "pytorch_libtorch"``)."""
