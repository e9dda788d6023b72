"""What crossmatch writes: the JSON of every result as a typed model, and the metrics that can stand in it.

Declarations alone: whoever makes a result, reads it or shows it names its type from here.
"""
