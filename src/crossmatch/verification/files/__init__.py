"""Files beside the weights: config, generation config, tokenizer, chat template."""
