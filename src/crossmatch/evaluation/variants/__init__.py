"""What is compared: base, adapters, merges, controls, written checkpoints."""
