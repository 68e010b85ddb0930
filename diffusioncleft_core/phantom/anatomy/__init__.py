"""The parts of the phantom: a shaded parametric head, its whole, cleft or repaired lip, and its ground truth.

Geometry is in millimetres on a frontal plane (x to the right of the picture, y down, z to the camera, origin
midway between the pupils). A file draws one part; `phantom/render.py` puts them together.
"""
