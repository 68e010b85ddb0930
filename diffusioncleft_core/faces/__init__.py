"""Faces: detection, five landmarks and identity embeddings, through insightface and its model packs."""
