"""Charts as Vega-Lite specifications, made with altair."""
