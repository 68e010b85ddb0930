"""Colours of the phantom, sRGB 0 to 255. Tones are far enough apart for an oracle to tell them."""

SKIN: dict[str, tuple[float, float, float]] = {
    "pale": (252, 236, 230),
    "fair": (248, 208, 194),
    "light": (236, 196, 148),
    "medium": (200, 144, 104),
    "olive": (178, 156, 100),
    "dark": (98, 64, 46),
}
HAIR: dict[str, tuple[float, float, float]] = {
    "blonde": (226, 190, 106),
    "brown": (116, 72, 40),
    "black": (30, 27, 30),
    "red": (186, 70, 30),
}
EYES: dict[str, tuple[float, float, float]] = {
    "brown": (84, 46, 20),
    "green": (62, 150, 72),
    "blue": (58, 122, 222),
    "hazel": (190, 134, 48),
}
SCLERA = (246.0, 246.0, 248.0)
PUPIL = (14.0, 12.0, 14.0)
MUCOSA = (186.0, 62.0, 74.0)
GAP = (62.0, 10.0, 18.0)
TEETH = (244.0, 240.0, 230.0)
