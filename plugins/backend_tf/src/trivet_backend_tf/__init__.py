"""TensorFlow as a backend of Trivet (``backend: "tensorflow"``; SavedModels and GraphDefs)."""
