"""Which modules of a fine-tune an answer comes from: gates on deltas, and their ablation."""
