"""Exact linear algebra on low-rank factors."""
