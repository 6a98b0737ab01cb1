"""TorchServe's archives and handlers, served as models."""
