"""Images of a plan from base and LoRA: `generate` draws them, `files` holds what a set on disk is made of."""
