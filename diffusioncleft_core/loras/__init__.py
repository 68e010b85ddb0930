"""LoRA files made of others: sums, lower ranks, and differences of two transformers."""
