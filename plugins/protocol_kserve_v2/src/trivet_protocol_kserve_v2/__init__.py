"""KServe v2 (the Open Inference Protocol) on HTTP and gRPC, with Triton's extensions."""
