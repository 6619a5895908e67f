"""Names, formats and paths of what `harness` writes and `reports` reads. Both import it, nothing else of each other."""
