"""What one adapter does to another's task: predicted, then measured."""
