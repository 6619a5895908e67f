"""What a person types: the commands of `harness`, and what they share."""
