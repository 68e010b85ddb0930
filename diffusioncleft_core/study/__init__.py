"""The rater study: people judge pictures without knowing where each comes from."""
