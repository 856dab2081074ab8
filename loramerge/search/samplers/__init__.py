"""Ways to choose the next points, one per file."""
