"""`python -m benchmarks.side_by_side`: what measuring costs beside the three programs it stands in for.

The same picture files on both sides, phantoms as PNG, read and decoded by each; rounds alternate, so that a
busy machine hurts both alike. Processor time says more than the clock there.

- faces: `face_records` without a cache against insightface's own loop (`cv2.imread`, `FaceAnalysis.get`).
- fid: `diffusioncleft measure --metrics fid` against `python -m pytorch_fid`, both as commands. Ours also
  gives KID, neighbourhoods, Vendi and intervals, and keeps features. Both have the seeded-random Inception
  that the tests have, because the real weights are not at hand.
- lpips: random pairs against the lpips package's loop (`load_image`, `im2tensor`, forward), on a
  seeded-random trunk and the package's heads.

`value` of faces is the sum of cosines to the first face: equal only where all embeddings are.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from diffusioncleft.diffusioncleft_core.environment import hardware, import_onnxruntime, versions
from diffusioncleft.diffusioncleft_core.faces.analyzer import MODULES, find_pack, load_face_analyzer
from diffusioncleft.diffusioncleft_core.faces.records import embedding_matrix, face_records
from diffusioncleft.diffusioncleft_core.files import read_json, write_json
from diffusioncleft.diffusioncleft_core.imageset.decode import read_image
from diffusioncleft.diffusioncleft_core.metrics import extractors
from diffusioncleft.diffusioncleft_core.metrics.lpips import draw_pairs, perceptual_pass
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.diffusioncleft_core.weights.networks import draw_from_seed

from .measurements import RESULTS, compare

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
"""What pytorch-fid looks for below TORCH_HOME."""


def draw(folder: Path, n: int, side: int, seed: int) -> Path:
    """n phantoms of side x side px."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for place in range(n):
        Image.fromarray(render(random_face(rng), side).image).save(folder / f"{place:04}.png")
    return folder


def faces(folder: Path, pack: str, rounds: int) -> dict[str, object]:
    """One pass over the faces of a folder's pictures; only files in which the first try finds one."""
    from insightface.app import FaceAnalysis

    analyzer, found = load_face_analyzer(pack, threads=1), find_pack(pack)
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    size = (analyzer.pack.det_size, analyzer.pack.det_size)
    app = FaceAnalysis(
        name=str(found.folder),
        allowed_modules=MODULES,
        providers=["CPUExecutionProvider"],
        sess_options=options,
    )
    app.prepare(ctx_id=0, det_thresh=found.det_thresh, det_size=size)
    names = sorted(path.name for path in folder.iterdir() if path.suffix in {".png", ".jpg"})
    records = face_records(folder, names, analyzer)
    names = [name for name, record in zip(names, records, strict=True) if record.rung == str(size[0])]

    def worth(embeddings: Any) -> float:
        return float((embeddings.astype(np.float64) @ embeddings[0]).sum())

    def ours() -> float:
        return worth(embedding_matrix(face_records(folder, names, analyzer))[0])

    def peers() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # skimage's
            seen = [app.get(cv2.imread(str(folder / name))) for name in names]
        largest = [max(some, key=lambda face: np.prod(face.bbox[2:] - face.bbox[:2])) for some in seen]
        return worth(np.stack([face.normed_embedding for face in largest]))

    ours()
    peers()
    side = int(np.median([record.width for record in records]))
    return {"n": len(names), "side": side, "rounds": rounds, **compare(ours, peers, rounds)}


def faces_of_phantoms(folder: Path, n: int, side: int, rounds: int) -> dict[str, object]:
    return faces(draw(folder, n, side, 0), "phantom", rounds)


def fid(root: Path, n: int, m: int, side: int, rounds: int) -> dict[str, object]:
    """Command against command, n pictures against m; ours on new copies, in which nothing is kept."""
    drawn, real = draw(root / "drawn", n, side, 1), draw(root / "real", m, side, 2)
    hub = root / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    network = extractors._inception_network()
    draw_from_seed(network, 0)
    torch.save(network.state_dict(), hub / INCEPTION)
    environment = {**os.environ, "TORCH_HOME": str(root / "torch"), "OMP_NUM_THREADS": "1"}

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def ours() -> float:
        copies = root / "copies"
        sides = [str(shutil.copytree(folder, copies / folder.name)) for folder in (drawn, real)]
        out = root / "measured.json"
        words = ["diffusioncleft", "measure", f"all={sides[0]}", "--reference", sides[1]]
        command(*words, "--metrics", "fid", "--phantom", "--out", str(out))
        shutil.rmtree(copies)
        return float(read_json(out)["sets"]["all"]["fid"]["paper"]["raw"]["value"])

    def peers() -> float:
        words = ["pytorch_fid", str(drawn), str(real), "--device", "cpu", "--num-workers", "0"]
        return float(command(*words, "--batch-size", "16").split()[-1])

    return {"n": n, "m": m, "side": side, "rounds": rounds, **compare(ours, peers, rounds)}


def lpips(folder: Path, count: int, rounds: int) -> dict[str, object]:
    """`count` random pairs of a folder's pictures, from the files."""
    import lpips as package

    paths = sorted(folder.glob("*.png"))
    network = extractors.perceptual(None, torch.device("cpu"))
    members = {"all": np.ones(len(paths), bool)}
    chosen = draw_pairs(members, count, 0)["all"]

    def ours() -> float:
        found = perceptual_pass(lambda place: network(read_image(paths[place])), members, chosen.tolist())
        return float(found.perceptual("all", chosen).pairs_mean or 0)

    def peers() -> float:
        def tensor(place: int) -> torch.Tensor:
            read: torch.Tensor = package.im2tensor(package.load_image(str(paths[place])))
            return read

        with torch.inference_mode():
            return float(np.mean([float(network.network(tensor(i), tensor(j))) for i, j in chosen.tolist()]))

    side = read_image(paths[0]).shape[0]
    facts = {"n": len(paths), "pairs": len(chosen), "side": side, "rounds": rounds}
    return facts | compare(ours, peers, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=60, help="for the faces, of each size")
    parser.add_argument("--sides", type=int, nargs="*", default=[256, 768], help="of these, px")
    parser.add_argument("--pack", help="a further face pack, for --photographs")
    parser.add_argument("--photographs", type=Path, help="a folder of photographs; only seconds are kept")
    parser.add_argument("--fid", type=int, nargs=2, default=[24, 24], help="pictures on either side")
    parser.add_argument("--pairs", type=int, default=36, help="for LPIPS, of 24 pictures of 256 px")
    parser.add_argument("--only", nargs="+", default=["faces", "lpips", "fid"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.out / "side_by_side_cpu.json"
    result: dict[str, Any] = read_json(path) if path.is_file() else {}
    result |= {"what": "seconds", "threads": 1, "versions": versions(), "hardware": hardware()}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        parts: dict[str, Callable[[], dict[str, object]]] = {}
        if "faces" in args.only:
            for side in args.sides:
                parts[f"faces_{side}"] = partial(
                    faces_of_phantoms, root / str(side), args.pictures, side, args.rounds
                )
            if args.photographs:
                parts["faces_photographs"] = lambda: faces(args.photographs, args.pack, args.rounds)
        if "lpips" in args.only:
            parts["lpips"] = lambda: lpips(draw(root / "pairs", 24, 256, 3), args.pairs, min(args.rounds, 3))
        if "fid" in args.only:
            n, m = args.fid
            parts["fid"] = lambda: fid(root / "fid", n, m, 256, min(args.rounds, 2))
        for name, part in parts.items():
            result[name] = part()
            print(f"{name}: {result[name]}", flush=True)
            write_json(path, result)
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
