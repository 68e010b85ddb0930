"""From identity and subject to the measures of a face, in shares of the frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .face import PhantomFace


@dataclass(frozen=True)
class Geometry:
    """Measures of one face before its pose: the frame is the unit square, x right, y down."""

    cheek: float
    """Half width at the cheeks."""
    jaw: float
    """Half width at the jaw."""
    top: float
    chin: float
    eye_y: float
    eye_dx: float
    """Half distance of the eyes."""
    eye_rx: float
    eye_ry: float
    eye_tilt: float
    iris: float
    brow_gap: float
    brow_width: float
    brow_arch: float
    nose_y: float
    """Height of the nose base."""
    nose_rx: float
    """Half width of the nose at its wings."""
    bridge: float
    mouth_y: float
    mouth_rx: float
    upper_lip: float
    lower_lip: float
    bow: float
    """Depth of the cupid's bow."""
    ear: float
    hairline: float
    parting: float
    lip_redness: float
    skin_shift: tuple[float, float, float]
    mole: tuple[float, float, float]
    """Place (x, y) and radius of a mole; radius 0 for none."""


_BASE = {
    # cheek, jaw, chin, eye_y, eye_rx, eye_ry, brow_width, mouth_rx, lips, hairline
    "baby": (0.325, 0.270, 0.850, 0.520, 0.075, 0.062, 0.010, 0.108, 1.00, 0.235),
    "kid": (0.310, 0.245, 0.870, 0.500, 0.073, 0.056, 0.014, 0.118, 1.00, 0.255),
    "girl": (0.308, 0.235, 0.870, 0.500, 0.076, 0.058, 0.012, 0.118, 1.15, 0.260),
    "boy": (0.312, 0.255, 0.875, 0.495, 0.072, 0.053, 0.019, 0.122, 0.95, 0.255),
    "man": (0.305, 0.262, 0.905, 0.465, 0.068, 0.044, 0.026, 0.132, 0.88, 0.235),
    "woman": (0.298, 0.222, 0.892, 0.470, 0.074, 0.050, 0.013, 0.126, 1.30, 0.240),
}


def geometry(face: PhantomFace) -> Geometry:
    """Measures of `face`: its subject sets the middle, its identity the deviation (bounded by tanh)."""
    z: NDArray[np.float64] = np.tanh(face.identity * 0.8)
    cheek, jaw, chin, eye_y, eye_rx, eye_ry, brow, mouth_rx, lips, hairline = _BASE[
        face.attributes["subject"]
    ]
    mouth_y = 0.765 + 0.35 * (chin - 0.87) + 0.008 * z[12]
    nose_y = 0.635 + 0.25 * (chin - 0.87) + 0.012 * z[11]
    has_mole = abs(face.identity[20]) > 0.6
    return Geometry(
        cheek=cheek + 0.026 * z[0],
        jaw=jaw + 0.030 * z[1],
        top=0.14,
        chin=chin + 0.022 * z[2],
        eye_y=eye_y + 0.016 * z[3],
        eye_dx=0.137 + 0.017 * z[4],
        eye_rx=eye_rx + 0.009 * z[5],
        eye_ry=eye_ry + 0.009 * z[6],
        eye_tilt=9.0 * float(z[7]),
        iris=0.039 + 0.003 * z[6],
        brow_gap=0.036 + 0.012 * z[8],
        brow_width=brow + 0.006 * z[9],
        brow_arch=0.022 + 0.020 * z[10],
        nose_y=nose_y,
        nose_rx=0.058 + 0.014 * z[13],
        bridge=0.020 + 0.008 * z[14],
        mouth_y=mouth_y,
        mouth_rx=mouth_rx + 0.014 * z[15],
        upper_lip=(0.030 + 0.007 * z[16]) * lips,
        lower_lip=(0.034 + 0.009 * z[17]) * lips,
        bow=0.010 + 0.004 * z[16],
        ear=0.075 + 0.015 * z[18],
        hairline=hairline + 0.028 * z[19],
        parting=0.16 * float(z[21]),
        lip_redness=0.55 + 0.25 * float(z[22]),
        skin_shift=(4.0 * float(z[23]), 2.5 * float(z[22]), 4.0 * float(z[21])),
        mole=(
            0.5 + 0.19 * float(np.sign(z[20])) + 0.03 * float(z[21]),
            0.63 + 0.05 * float(z[22]),
            0.009 if has_mole else 0.0,
        ),
    )
