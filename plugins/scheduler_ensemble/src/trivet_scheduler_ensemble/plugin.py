"""What this package offers to Trivet."""
