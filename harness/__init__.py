"""The benchmark harness: grids, training, storage, tracking and the command line."""
