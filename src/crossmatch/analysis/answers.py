"""What the analysis answers about a statement of the literature."""

SUPPORTED, CONTRADICTED, NOT_DECIDED = "supported", "contradicted", "not decided at this size"
NO_DIFFERENCE = "no difference that matters"
