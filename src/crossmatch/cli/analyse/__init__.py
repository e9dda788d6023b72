"""crossmatch analyse."""
