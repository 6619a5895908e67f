"""The commands of `harness`, and what they share."""
