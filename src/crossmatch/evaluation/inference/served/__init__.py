"""The same questions to a model on a server."""
