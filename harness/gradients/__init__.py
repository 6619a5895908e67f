"""The quality of gradients: draws, the true gradient, and the statistics of their distance."""
