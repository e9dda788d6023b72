"""What weights alone say: sizes, alignment with the base, overlaps of two updates."""
