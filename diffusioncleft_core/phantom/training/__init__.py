"""Scripts that make the embedded models; nothing here runs when a user generates."""
