"""Image sets: decoding, rows, manifests, sidecars, the synthetic mark, verdicts, and where an image lies."""
