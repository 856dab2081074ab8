"""Merge methods, one per file; the file name is the method name."""
