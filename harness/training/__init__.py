"""What one training run is made of: backbone, state, evaluation, checkpoints."""
