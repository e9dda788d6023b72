"""crossmatch evaluate."""
