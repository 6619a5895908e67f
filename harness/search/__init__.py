"""Which runs a sweep gets next, from the results so far: tuning, and seeds until the answer is known."""
