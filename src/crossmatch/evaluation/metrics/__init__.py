"""What is measured of one answer: each metric, item by item."""
