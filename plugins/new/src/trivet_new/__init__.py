"""``trivet new``: packages for Trivet, written from templates."""
