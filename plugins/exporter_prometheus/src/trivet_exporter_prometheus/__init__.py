"""Metrics for Prometheus: Triton's families under their own names and labels, and Trivet's own beside them."""
