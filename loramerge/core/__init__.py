"""What an adapter is: updates, names, catalogs, provenance."""
