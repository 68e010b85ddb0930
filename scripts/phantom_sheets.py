"""Draw the phantom's sheets for README and docs/phantom.md; --demo adds the README's faces of a demo's run.

python scripts/phantom_sheets.py --out docs/images --demo demo
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.phantom.anatomy.skin import TONES
from diffusioncleft.diffusioncleft_core.phantom.face import (
    CLEFT,
    EXPRESSIONS,
    SCAR,
    SUBJECTS,
    Cleft,
    Light,
    PhantomFace,
    Repair,
    Side,
    View,
    random_face,
)
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.diffusioncleft_core.report.folders import RunFolders

Picture = NDArray[np.uint8]
Cell = tuple[str, Picture]
SHORT = {"hair_length": "short", "hair_texture": "straight", "hair_color": "brown"}
MIXED = (
    {"hair_texture": "straight", "hair_color": "black"},
    {"hair_texture": "wavy", "hair_color": "brown"},
    {"hair_texture": "curly", "hair_color": "black"},
    {"hair_texture": "straight", "hair_color": "blonde"},
    {"hair_texture": "wavy", "hair_color": "red"},
    {"hair_texture": "coily", "hair_color": "black"},
)


def person(seed: int, **words: str) -> PhantomFace:
    """A healthy person without glasses, straight on."""
    face = random_face(np.random.default_rng(seed), attributes=words)
    return replace(face, view=View(), glasses=False)


def whole(face: PhantomFace, side: int = 200) -> Picture:
    """The whole picture, drawn at `side` px."""
    return render(face, side).image


def mouth_of(face: PhantomFace, side: int = 200) -> Picture:
    """Nose and mouth, cut from a picture of 512 px."""
    made = render(face, 512)
    x1, y1, x2, y2 = made.lips
    half = 0.75 * max(x2 - x1, y2 - y1)
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2 - 0.12 * half
    part = made.image[round(cy - half) : round(cy + half), round(cx - half) : round(cx + half)]
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def sheet(rows: Sequence[Sequence[Cell]], path: Path) -> None:
    """Pictures in rows, each with its words below."""
    side, line = rows[0][0][1].shape[0], 16
    width = max(len(row) for row in rows) * side
    page = Image.new("RGB", (width, len(rows) * (side + line)), "white")
    pen = ImageDraw.Draw(page)
    for i, row in enumerate(rows):
        for j, (words, picture) in enumerate(row):
            page.paste(Image.fromarray(picture), (j * side, i * (side + line)))
            pen.text((j * side + 4, i * (side + line) + side + 2), words, fill="black")
    page.save(path, optimize=True)
    print(path)


def mosaic(rows: Sequence[Sequence[Picture]], path: Path) -> None:
    """Pictures of one size in rows, without words."""
    page = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    Image.fromarray(page).save(path, optimize=True)
    print(path)


def at_random(finding: str | None, seed: int, n: int = 8, side: int = 160) -> list[Picture]:
    """People as the phantom draws them when nothing is asked, every skin tone in turn."""
    rng, tones = np.random.default_rng(seed), list(TONES)
    return [
        whole(random_face(rng, finding=finding, attributes={"skin": tones[i % len(tones)]}), side)
        for i in range(n)
    ]


def passed(run: Path, n: int = 20) -> list[list[Picture]]:
    """The first faces of each condition that passed the filters of a run, in rows of ten."""
    rows: list[list[Picture]] = []
    for condition in load_vocabulary().conditions:
        folder = RunFolders(run).generated(condition)
        found = [row.file for row in read_image_set(folder) if row.accepted][:n]
        pictures = [np.asarray(Image.open(folder / file).convert("RGB")) for file in found]
        rows += [pictures[i : i + 10] for i in range(0, n, 10)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--demo", type=Path, metavar="RUN", help="folder of a finished `make demo`")
    args = parser.parse_args()
    out: Path = args.out
    mosaic([at_random(None, 1), at_random(CLEFT, 2), at_random(SCAR, 3)], out / "phantoms.png")
    if args.demo:
        mosaic(passed(args.demo), out / "demo.png")
    people = ("woman", "man", "girl", "boy", "kid", "baby")
    tones = [
        [
            (skin, whole(person(40 + i, subject=who, skin=skin, **MIXED[(i + j) % 6])))
            for j, skin in enumerate(TONES)
        ]
        for i, who in enumerate(people[:4])
    ]
    sheet(tones, out / "phantom_tones.png")
    sheet(
        [
            [
                (who, whole(person(60 + n, subject=who, skin=list(TONES)[(n + i) % 6], **MIXED[(i + n) % 6])))
                for i, who in enumerate(SUBJECTS)
            ]
            for n in range(2)
        ],
        out / "phantom_ages.png",
    )
    woman = person(
        71, subject="woman", skin="medium", hair_length="long", hair_texture="wavy", hair_color="brown"
    )
    views = [
        ("yaw -20", View(yaw=-20)),
        ("yaw 20", View(yaw=20)),
        ("pitch -10", View(pitch=-10)),
        ("pitch 10", View(pitch=10)),
        ("roll 10", View(roll=10)),
    ]
    lights = [
        ("light -60", View(light=Light(azimuth=-60, key=0.75))),
        ("light 60", View(light=Light(azimuth=60, key=0.75))),
        ("from above", View(light=Light(azimuth=0, elevation=60, key=0.7))),
        ("warm lamp", View(light=Light(warmth=1.0), background="clinic")),
        ("blue sky", View(light=Light(warmth=-1.0), background="outdoors")),
    ]
    sheet(
        [
            [(e, whole(replace(woman, view=View(expression=e)))) for e in EXPRESSIONS],
            [(name, whole(replace(woman, view=view))) for name, view in views],
            [(name, whole(replace(woman, view=view))) for name, view in lights],
        ],
        out / "phantom_views.png",
    )
    baby = person(12, subject="baby", skin="fair", **SHORT)
    dark = person(
        31, subject="baby", skin="dark", hair_length="short", hair_texture="curly", hair_color="black"
    )
    rows: list[list[Cell]] = []
    clefts: Sequence[tuple[PhantomFace, Side]] = ((baby, "left"), (dark, "right"), (baby, "bilateral"))
    for who, side in clefts:
        rows.append(
            [
                (f"{side}, {s:.2f}", mouth_of(replace(who, cleft=Cleft(side, s, min(1.0, s)))))
                for s in (0.1, 0.3, 0.5, 0.7, 0.85, 1.0)
            ]
        )
    rows.append(
        [
            (f"bilateral, {a:.2f}/{b:.2f}", mouth_of(replace(dark, cleft=Cleft("bilateral", a, 0.5, b))))
            for a, b in ((0.4, 0.4), (0.6, 0.4), (0.6, 0.9), (0.9, 0.5), (1.0, 0.8), (1.0, 1.0))
        ]
    )
    sheet(rows, out / "phantom_clefts.png")
    girl = person(21, subject="girl", skin="olive", **SHORT)
    rows = []
    repairs: Sequence[tuple[PhantomFace, Side, bool]] = (
        (girl, "left", False),
        (dark, "right", True),
        (girl, "bilateral", False),
    )
    for who, side, curved in repairs:
        rows.append(
            [
                (
                    f"{side}, {s:.1f}",
                    mouth_of(
                        replace(
                            who,
                            repair=Repair(
                                side, s, s, s, s if side == "bilateral" else 0.0, 1 - 0.8 * s, curved, s
                            ),
                        )
                    ),
                )
                for s in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
            ]
        )
    sheet(rows, out / "phantom_repairs.png")
    pairs: list[list[Cell]] = [[], []]
    for n, skin in enumerate(TONES):
        before = random_face(np.random.default_rng(300 + n), finding=CLEFT, attributes={"skin": skin})
        after = before.repaired(np.random.default_rng(n))
        pairs[0].append(
            (f"before: {before.attributes['cleft_type']}, {before.attributes['severity']}", whole(before))
        )
        pairs[1].append((f"after: {after.attributes['scar']}", whole(after)))
    sheet(pairs, out / "phantom_pairs.png")
    sizes: list[Cell] = []
    for size in (64, 128, 256, 512, 1024):
        picture = render(replace(baby, cleft=Cleft("left", 0.6, 0.5)), size).image
        sizes.append(
            (
                f"{size} px",
                np.asarray(
                    cv2.resize(
                        picture, (256, 256), interpolation=cv2.INTER_NEAREST if size < 256 else cv2.INTER_AREA
                    ),
                    np.uint8,
                ),
            )
        )
    sheet([sizes], out / "phantom_sizes.png")


if __name__ == "__main__":
    main()
