"""Language models: prompts in, replies out, many at once."""
