"""ONNX Runtime as a backend of Trivet (``backend: "onnxruntime"``, ``platform: "onnxruntime_onnx"``)."""
