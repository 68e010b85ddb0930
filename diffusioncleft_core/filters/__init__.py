"""Artifact and identity filters over image sets."""
