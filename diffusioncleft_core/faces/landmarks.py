"""The names of the five landmarks that a face detector gives, in its order."""

LANDMARKS = ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right")
"""Left and right as seen in the picture."""
