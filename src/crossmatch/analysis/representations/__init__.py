"""What a fine-tune does to the activations, layer by layer."""
