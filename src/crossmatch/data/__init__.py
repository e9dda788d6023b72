"""Suites, training sets and texts: one way to read rows, templates, and what becomes of them as tokens."""
