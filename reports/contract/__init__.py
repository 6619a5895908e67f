"""What `harness` writes and `reports` reads: names, forms and places. Both import it, and no more of each other."""
