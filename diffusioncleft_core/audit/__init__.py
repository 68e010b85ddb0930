"""The audit of a LoRA itself: whether it can be made to give its training photographs away."""
