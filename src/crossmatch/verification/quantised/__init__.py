"""Quantised exports: what is inside, within the error that quantisation makes."""
