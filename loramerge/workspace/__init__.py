"""A folder with a lock: sources, results, references."""
