"""``ts.torch_handler``."""
