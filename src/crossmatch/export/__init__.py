"""Results for other programs: named tables, files of them, data frames, statements, bills of material, trackers.

Facts in (the plain JSON of a result), plain values out. No number is made here, and nothing heavy is imported before it
is used.
"""
