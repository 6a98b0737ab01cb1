"""What is measured, and against whom: ``python -m bench --list``. See docs/benchmarks.md for what came out."""
