"""Measure the embedded base model: no clefts, whatever the prompt says, and the attributes asked for.

    python -m diffusioncleft.tools.evaluate_base \\
        --n 510 --out experiments/phantom_base.json

Every share is corrected for the oracle's errors and has a 95 % interval. --sheet draws the pictures whose
cleft, skin, hair or eyes the oracle reads otherwise than asked.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import sampling_plan
from ..diffusioncleft_core.conditions.plan_rows import PlanRow
from ..diffusioncleft_core.conditions.prompts import build_prompt
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.flux.source import phantom_source
from ..diffusioncleft_core.generation.sampler import ImageSampler, embed_prompts
from ..diffusioncleft_core.generation.settings import Sampling
from ..diffusioncleft_core.imageset.synthetic import contact_sheet
from ..diffusioncleft_core.phantom.oracle import (
    Reading,
    accuracy_of,
    as_figure,
    attribute_rate,
    load_oracle,
)
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.statistics import corrected

_READ = ("skin", "hair_color", "eyes", "hair_length", "hair_texture")


def base_cells(n: int, seed: int) -> dict[str, Sequence[PlanRow]]:
    """Healthy prompts, both conditions' prompts without the trigger and with it; n rows each."""
    vocabulary = load_vocabulary()
    pre, post = vocabulary.condition("pre_op"), vocabulary.condition("post_op")
    healthy: list[PlanRow] = [
        replace(row, prompt=build_prompt(post, row.attributes, trigger="", cleft=False))
        for row in sampling_plan(post, n, seed)
    ]
    cells: dict[str, Sequence[PlanRow]] = {"healthy_prompt": healthy}
    for condition in (pre, post):
        plan = sampling_plan(condition, n, seed + 1)
        cells[f"{condition.name}_prompt_without_trigger"] = [
            replace(row, prompt=build_prompt(condition, row.attributes, trigger="")) for row in plan
        ]
        cells[f"{condition.name}_full_prompt"] = plan
    return cells


def draw(cells: dict[str, Sequence[PlanRow]], batch: int) -> dict[str, NDArray[np.uint8]]:
    """Pictures of every cell by the base model, [n, 128, 128, 3]."""
    device, source = torch.device("cpu"), phantom_source()
    prompts = list(dict.fromkeys(row.prompt for rows in cells.values() for row in rows))
    embeddings = embed_prompts(source, prompts, device, torch.float32)
    sampler = ImageSampler(source, device, torch.float32)
    sampling = Sampling(device, torch.float32, width=128, height=128, batch=batch)
    pictures: dict[str, NDArray[np.uint8]] = {}
    with progress(sum(map(len, cells.values())), "base model") as bar:
        for name, rows in cells.items():
            parts = []
            for part, drawn in sampler.batches(rows, embeddings, sampling):
                parts.append(drawn)
                bar.update(len(part))
            pictures[name] = np.concatenate(parts)
    return pictures


def figures(reading: Reading, rows: Sequence[PlanRow]) -> dict[str, Any]:
    """Share with a cleft and share of each attribute followed, overall and in each skin tone."""
    wanted = [row.attributes for row in rows]
    cleft = corrected(int(reading.cleft.sum()), len(rows), accuracy_of("cleft"))
    scar = corrected(int(reading.scar.sum()), len(rows), accuracy_of("scar"))
    followed = {name: attribute_rate(name, reading, wanted) for name in _READ}
    return {"cleft": as_figure(cleft), "scar": as_figure(scar), "followed": followed}


def misread(reading: Reading, rows: Sequence[PlanRow]) -> list[tuple[int, str]]:
    """(index, what was asked and what was read) of pictures read otherwise than asked."""
    found = []
    for i, row in enumerate(rows):
        wrong = [
            f"{k}: {row.attributes[k]} > {reading.words[k][i]}" for k in _READ[:3] if k in row.attributes
        ]
        wrong = [text for text in wrong if text.split(": ")[1].split(" > ")[0] != text.split(" > ")[1]]
        if reading.cleft[i]:
            wrong.insert(0, f"cleft read: {reading.cleft_side[i]}")
        if wrong:
            found.append((i, "; ".join(wrong)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=510, help="pictures a cell")
    parser.add_argument("--seed", type=int, default=4711)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="where a picture of the misread ones goes")
    args = parser.parse_args()
    cells, oracle = base_cells(args.n, args.seed), load_oracle()
    pictures = draw(cells, args.batch)
    readings = {name: oracle.read(images) for name, images in pictures.items()}
    result = {name: figures(readings[name], rows) for name, rows in cells.items()}
    rows = [row for part in cells.values() for row in part]
    command = f"python -m {__spec__.name} {' '.join(sys.argv[1:])}" if __spec__ else ""
    everything = oracle.read(np.concatenate(list(pictures.values())))
    write_json(
        args.out,
        {
            "what": "Embedded phantom base model, figures corrected for the oracle's errors.",
            "command": command,
            "date": date.today().isoformat(),
            "all": figures(everything, rows),
            "cells": result,
        },
    )
    if args.sheet:
        wrong = [
            (pictures[name][i], text)
            for name, part in cells.items()
            for i, text in misread(readings[name], part)
        ]
        if wrong:
            contact_sheet(wrong[:80], args.sheet, title=f"{len(wrong)} of {len(rows)} read otherwise")
    for name, found in result.items():
        followed = {k: round(v["value"], 3) for k, v in found["followed"].items() if v["value"] is not None}
        print(f"{name}: cleft {found['cleft']['value']:.4f}, {followed}")


if __name__ == "__main__":
    main()
