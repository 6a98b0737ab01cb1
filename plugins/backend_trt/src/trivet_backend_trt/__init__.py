"""Plans of TensorRT as models of Trivet, and `trivet trt build`."""
