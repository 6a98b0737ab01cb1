"""What handlers of TorchServe import from ``ts``: its interface, written anew. Source: TorchServe's documentation,
"Custom Service", and the names in its public API.
"""

__version__ = "0.12.0"
"""The version of TorchServe whose interface this is."""
