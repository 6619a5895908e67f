"""The parts of one training run: backbone, state, evaluation, checkpoints."""
