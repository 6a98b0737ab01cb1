"""Builds the example model repository out of packages on the index; ``build_repository.py`` is its command line."""
