"""What generated faces are good for: classifiers trained on them, and the evidence from real photographs."""
