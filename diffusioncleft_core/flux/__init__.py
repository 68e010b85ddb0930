"""FLUX.1 schnell: its files, encoding, sampling, and LoRA."""
