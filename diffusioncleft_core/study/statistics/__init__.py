"""What ratings say: means, agreement, equivalence, detection, each with its interval."""
