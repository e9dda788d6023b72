"""How a model is asked: generation, scores of options and documents, hidden states."""
