"""What is in each kind of result, as named tables."""
