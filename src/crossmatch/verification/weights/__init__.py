"""What is in the weights of a file: one pass over all rows, estimates, what is left over, what that means."""
