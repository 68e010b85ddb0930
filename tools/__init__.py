"""What made the embedded models, and what measures them. Not in the wheel."""
