"""The page: from results to one self-contained HTML file."""
