"""The LoRA trainer: a process of its own, started by `accelerate launch`, in the manner of kohya."""
