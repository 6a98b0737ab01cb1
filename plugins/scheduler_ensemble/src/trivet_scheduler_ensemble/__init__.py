"""Ensembles as a scheduler of Trivet (``ensemble_scheduling`` of a model configuration)."""
