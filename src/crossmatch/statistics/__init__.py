"""Estimates, resampling, proportions, several tests at once."""
