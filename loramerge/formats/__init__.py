"""One file per on-disk adapter format."""
