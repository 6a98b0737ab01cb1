"""Language models in GGUF files for Trivet, with llama.cpp."""
