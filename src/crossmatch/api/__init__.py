"""A Python entry for each command, with the names of its options; `import crossmatch` offers them, loaded when used.

What an option takes as NAME=VALUE, repeated, is a mapping here; what it takes as text and repeated, a sequence.
"""
