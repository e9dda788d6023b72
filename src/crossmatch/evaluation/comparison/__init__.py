"""From records to figures: one variant beside another, with intervals and tests."""
