"""Measurements over image sets."""
