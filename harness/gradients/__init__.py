"""How good a gradient is: draws of it, the truth, and the statistics of their distance."""
