"""What a sweep keeps on the disk: journal, plan, checkpoints, weights, and the lease of its driver."""
