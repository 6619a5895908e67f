"""What `harness` writes and `reports` reads: names, forms and places. Both import it, and nothing else of each other."""
