"""Face packs on disk, and their analysis by the unmodified `insightface.app.FaceAnalysis`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..environment import import_onnxruntime, usable_cores
from ..errors import UserError
from ..files import read_json, sha256_model
from ..home import below_home, expanded
from ..ranges import number, whole
from ..weight_file import stand_in
from .calibration import Calibration

PHANTOM = "phantom"
"""Name of the embedded pack, which knows phantoms and nothing else."""
PHANTOM_FOLDER = Path(__file__).resolve().parent.parent / "phantom" / "models" / "phantom-faces"
ENVIRONMENT = "DIFFUSIONCLEFT_FACE_PACKS"
FETCHED = ("buffalo_l", "auraface")
"""The packs that `diffusioncleft weights fetch` gets."""
DEFAULT_DET_SIZE = 640
DET_SIZE = whole(32, 4096)
DET_THRESH = number(0, 1, above=True, below=True)


@dataclass(frozen=True)
class FacePack:
    """A pack on disk and how its detector is run."""

    name: str
    folder: Path
    det_size: int
    """Side of the square the detector sees, pixels, a multiple of 32."""
    det_thresh: float
    phantom_only: bool
    """True for models trained on phantoms: never to be used on photographs."""
    calibration: Calibration | None = None
    """Thresholds at stated false-match rates; None where the pack brings none along."""

    def weights(self) -> dict[str, str]:
        """sha256 of every ONNX file in the pack, by file name."""
        return {path.name: sha256_model(path) for path in sorted(self.folder.glob("*.onnx"))}


def search_folders(roots: Sequence[Path] = ()) -> list[Path]:
    """Folders searched for a pack's name, in order: the caller's, the environment's, insightface's."""
    folders = list(roots)
    folders += [Path(entry) for entry in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if entry]
    folders += below_home(".insightface")
    return [place for folder in map(expanded, folders) for place in (folder / "models", folder)]


def find_pack(pack: str | Path, roots: Sequence[Path] = ()) -> FacePack:
    """The pack called `pack`, or at that path; "phantom" is the embedded one.

    Args:
        pack: name or path.
        roots: model folders in insightface's layout (`<root>/models/<name>`), or folders of packs.

    Raises:
        UserError: there is none: a missing face model stops the stage, nothing is downloaded.
    """
    if pack == PHANTOM:
        return read_pack(PHANTOM_FOLDER)
    if isinstance(pack, Path) or pack.startswith(("~", ".")) or os.sep in pack or "/" in pack:
        folder = expanded(pack)
        if not folder.is_dir():
            raise UserError(
                f"there is no face pack folder at {folder}; "
                "give a folder with a detector and a recogniser (.onnx)"
            )
        return read_pack(folder)
    places = search_folders(roots)
    for place in places:
        if (place / pack).is_dir() and pack:
            return read_pack(place / pack)
    raise UserError(
        f"the face pack {pack!r} {_not_found(pack, places)} (docs/faces.md lists packs and licences)"
    )


def _not_found(pack: str, places: Sequence[Path]) -> str:
    """Where a pack's name was looked for in vain, and what to do."""
    if pack and Path(pack).is_dir():
        return f"is looked for by its name; to take the folder of that name here, write ./{pack}"
    if not places:
        return (
            f"was looked for nowhere: no home folder is known; pass the pack's folder, or set {ENVIRONMENT}"
        )
    looked = ", ".join(map(str, places))
    if pack in FETCHED:
        return (
            f"is in none of {looked}; run: diffusioncleft weights fetch {pack}, or pass a pack's folder; for "
            f"phantoms take {PHANTOM} (--phantom)"
        )
    return (
        f"is in none of {looked}; put its .onnx files into <one of these>/{pack}, or pass the pack's folder, "
        f"or set {ENVIRONMENT}"
    )


def read_pack(folder: Path) -> FacePack:
    """Read a pack's folder and its optional `pack.json` (name, det_size, det_thresh, phantom_only,
    calibration).
    """
    if not any(folder.glob("*.onnx")):
        raise UserError(f"the face pack {folder} holds no .onnx file; put a detector and a recogniser there")
    for model in sorted(folder.glob("*.onnx")):
        if instead := stand_in(model):
            raise UserError(f"{model} {instead}")
    settings: dict[str, Any] = {}
    description = folder / "pack.json"
    if description.is_file():
        loaded = read_json(description)
        if not isinstance(loaded, dict):
            raise UserError(f"{description} must hold one JSON object; repair or remove it")
        settings = loaded
    det_size, det_thresh = settings.get("det_size", DEFAULT_DET_SIZE), settings.get("det_thresh", 0.5)
    if not DET_SIZE.holds(det_size) or int(det_size) % 32:
        raise UserError(f"det_size in {description} is {det_size!r}; give a multiple of 32, e.g. 640")
    if not DET_THRESH.holds(det_thresh):
        raise UserError(f"det_thresh in {description} is {det_thresh!r}; give a number between 0 and 1")
    return FacePack(
        name=str(settings.get("name", folder.name)),
        folder=folder.resolve(),
        det_size=int(det_size),
        det_thresh=float(det_thresh),
        phantom_only=bool(settings.get("phantom_only", False)) or folder.resolve() == PHANTOM_FOLDER,
        calibration=Calibration.from_json(settings["calibration"], str(description))
        if "calibration" in settings
        else None,
    )


MODULES = ["detection", "recognition"]
_NEEDED = (
    "face analysis needs insightface and onnxruntime ({}); "
    "run: pip install insightface onnxruntime opencv-python"
)
SMALLER = (512, 320, 128)
"""Detector sizes tried after the pack's own: a face that fills the frame is missed when it is too large."""
MOST_ELONGATED = 6.0
"""Images longer than this many times their width are put on a square canvas before detection."""


@dataclass(frozen=True, eq=False)
class Face:
    """One detected face, in the pixels of the image it was found in."""

    box: NDArray[np.float32]
    """[4]: x0, y0, x1, y1; may reach beyond the frame."""
    landmarks: NDArray[np.float32]
    """[5, 2]: the eye left in the image, the eye right in it, nose tip, left and right mouth corner."""
    score: float
    embedding: NDArray[np.float32]
    """[512], L2 norm 1."""
    rung: str
    """The step of the retry ladder that found it: a detector size, or "padded <size>"."""

    @property
    def area(self) -> float:
        """Area of the box, square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


@dataclass(frozen=True)
class Rung:
    """One try at detection: at this detector size, on the image or on a canvas twice as large."""

    size: int
    padded: bool = False

    def __str__(self) -> str:
        return f"padded {self.size}" if self.padded else str(self.size)

    def canvas(self, detector: int) -> float:
        """Side of the canvas, in longer sides of the image, on which a detector of that size is this rung."""
        return (2.0 if self.padded else 1.0) * detector / self.size


@dataclass(frozen=True, eq=False)
class _Detection:
    """What one rung found: boxes [n, 5] (x0, y0, x1, y1, score) and landmarks [n, 5, 2] in `picture`, BGR, on
    which the image lies at `shift` (x, y)."""

    rung: Rung
    picture: NDArray[Any]
    shift: NDArray[np.float32]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]


def retry_ladder(det_size: int) -> list[Rung]:
    """The pack's detector size, the smaller ones, then the pack's size on a padded canvas."""
    sizes = [det_size, *(size for size in SMALLER if size < det_size)]
    return [*(Rung(size) for size in sizes), Rung(det_size, padded=True)]


class FaceAnalyzer:
    """Finds faces and embeds them. Built by `load_face_analyzer`.

    `again`: builds it anew, in another process too; None where nothing can.
    """

    def __init__(self, pack: FacePack, app: Any, again: Callable[[], FaceAnalyzer] | None = None) -> None:
        self._app, self.again = app, again
        self._fixed_size = _fixed_size(app.det_model)
        self.pack = pack if self._fixed_size is None else replace(pack, det_size=self._fixed_size)
        self._ladder = retry_ladder(self.pack.det_size)

    @functools.cached_property
    def _weights(self) -> dict[str, str]:
        return self.pack.weights()

    @property
    def phantom_only(self) -> bool:
        """True when the models were trained on phantoms and must not see photographs."""
        return self.pack.phantom_only

    def analyze(self, image: NDArray[np.uint8]) -> list[Face]:
        """Faces in `image` [H, W, 3] uint8 RGB, the largest first; an empty list when none is found.

        The ladder stops at the first rung with a face.

        Raises:
            ValueError: another shape or type.
        """
        for found in self._try_rungs(image):
            if len(found.boxes):
                return sorted(self._faces(found), key=lambda face: face.area, reverse=True)
        return []

    def n_faces(self, image: NDArray[np.uint8]) -> int:
        """How many faces `image` [H, W, 3] uint8 RGB shows: detection alone, same ladder as `analyze`."""
        return next((len(found.boxes) for found in self._try_rungs(image) if len(found.boxes)), 0)

    def second_look(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Boxes [n, 4] that the detector sees at the ladder's second size, in pixels of `image` [H, W, 3].

        Two faces that fill the frame side by side are now and then taken for one at the pack's own size.
        """
        found = next(self._try_rungs(image, self._ladder[1:2]))
        return np.asarray(found.boxes[:, :4], np.float32) - np.tile(found.shift, 2)

    def describe(self) -> dict[str, object]:
        """What made the figures: pack, weights' sha256, detector size and threshold, insightface version.

        `fixed_size` is there, and true, where the detector takes pictures of that one size.
        """
        import_onnxruntime()
        import insightface

        fixed = {"fixed_size": True} if self._fixed_size else {}
        return {
            "pack": self.pack.name,
            "weights": self._weights,
            "det_size": self.pack.det_size,
            "det_thresh": self.pack.det_thresh,
            "phantom_only": self.pack.phantom_only,
            "insightface": str(insightface.__version__),
            **fixed,
        }

    def _try_rungs(
        self, image: NDArray[np.uint8], ladder: Sequence[Rung] | None = None
    ) -> Iterator[_Detection]:
        import cv2

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"an RGB image [H, W, 3] uint8 is needed, not {image.shape} {image.dtype}")
        bgr: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        elongated = max(image.shape[:2]) > MOST_ELONGATED * min(image.shape[:2])
        for rung in ladder or self._ladder:
            size = self._fixed_size or rung.size
            factor = 1.0 if elongated and rung.padded else rung.canvas(size)
            picture, offset = _on_canvas(bgr, factor) if elongated or factor > 1 else (bgr, (0, 0))
            self._app.det_model.prepare(0, input_size=(size, size), det_thresh=self.pack.det_thresh)
            boxes, landmarks = self._app.det_model.detect(picture)
            yield _Detection(rung, picture, np.asarray(offset, np.float32), boxes, landmarks)

    def _faces(self, found: _Detection) -> Iterator[Face]:
        """The faces of a detection, embedded one by one, as `FaceAnalysis.get` does."""
        recogniser = self._app.models["recognition"]
        for box, landmarks in zip(found.boxes, found.landmarks, strict=True):
            crop = aligned(found.picture, landmarks, recogniser.input_size[0])
            embedding = np.asarray(recogniser.get_feat(crop).flatten(), np.float32)
            yield Face(
                box=np.asarray(box[:4], np.float32) - np.tile(found.shift, 2),
                landmarks=np.asarray(landmarks, np.float32) - found.shift,
                score=float(box[4]),
                embedding=embedding / max(float(np.linalg.norm(embedding)), 1e-12),
                rung=str(found.rung),
            )


def load_face_analyzer(
    pack: str | Path, *, roots: Sequence[Path] = (), device: str = "cpu", threads: int | None = None
) -> FaceAnalyzer:
    """Open a face pack.

    Args:
        pack: "phantom", a name ("buffalo_l") looked for under `roots`, or a folder.
        roots: see `find_pack`.
        device: "cuda" runs on the GPU where onnxruntime has its provider.
        threads: bounds onnxruntime's CPU threads (default: the cores this process may use).

    Raises:
        UserError: the pack is missing or broken.
    """
    found = find_pack(pack, roots)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnxruntime = import_onnxruntime()
            from insightface.app import FaceAnalysis
    except ImportError as error:
        raise UserError(_NEEDED.format(error)) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    available = onnxruntime.get_available_providers()
    providers = [name for name in [*wanted, "CPUExecutionProvider"] if name in available]
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            app = FaceAnalysis(
                name=str(found.folder), allowed_modules=MODULES, providers=providers, sess_options=options
            )
            app.prepare(ctx_id=0, det_thresh=found.det_thresh, det_size=(found.det_size, found.det_size))
            again = functools.partial(load_face_analyzer, found.folder, device=device)
            analyzer = FaceAnalyzer(found, app, again)
    except Exception as error:
        raise UserError(
            f"the face pack {found.folder} could not be opened ({_first_line(error)}); "
            "it needs an SCRFD detector and an ArcFace recogniser as .onnx, get it again or name another"
        ) from None
    if "recognition" not in app.models:
        raise UserError(f"the face pack {found.folder} has no recogniser; add one or name another pack")
    return analyzer


def check_face_analysis(pack: str | Path, *, roots: Sequence[Path] = ()) -> None:
    """Raise the UserError that `load_face_analyzer` would, as far as it shows without opening a model."""
    find_pack(pack, roots)
    for name in ("insightface", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise UserError(_NEEDED.format(f"there is no {name}"))


def aligned(picture: NDArray[Any], landmarks: NDArray[np.float32], side: int) -> NDArray[Any]:
    """The face in `picture` [H, W, 3] on ArcFace's template [side, side, 3].

    It is insightface's `norm_crop`, bit for bit, without the call that skimage 2.2 takes away and that warns
    until then: silencing a warning is not for a thread.

    Args:
        picture: any colours.
        landmarks: [5, 2], px.
        side: a multiple of 112, or of 128, where the template has a margin of 8.
    """
    import cv2
    from insightface.utils.face_align import arcface_dst
    from skimage.transform import estimate_transform

    ratio, margin = (side / 112.0, 0.0) if side % 112 == 0 else (side / 128.0, 8.0 * side / 128.0)
    template = arcface_dst * ratio
    template[:, 0] += margin
    found = estimate_transform("similarity", landmarks, template)
    matrix = found.params[:2] if found else np.full((2, 3), np.nan)
    crop: NDArray[Any] = cv2.warpAffine(picture, matrix, (side, side), borderValue=0.0)
    return crop


def _cores() -> int:
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) > 0 else usable_cores()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _fixed_size(detector: Any) -> int | None:
    """The side of the one square that a detector takes, px; None for one that takes any size.

    Raises ValueError for one that takes another form than a square.
    """
    height, width = detector.session.get_inputs()[0].shape[2:4]
    sides = {side for side in (height, width) if isinstance(side, int)}
    if len(sides) > 1:
        raise ValueError(f"its detector takes pictures of {width} x {height} px, not squares")
    return sides.pop() if sides else None


def _on_canvas(image: NDArray[np.uint8], factor: float) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """`image` in the middle of a grey square `factor` times its longer side, and its place (x, y) there."""
    height, width = image.shape[:2]
    side = round(factor * max(height, width))
    canvas = np.full((side, side, 3), 127, np.uint8)
    x, y = (side - width) // 2, (side - height) // 2
    canvas[y : y + height, x : x + width] = image
    return canvas, (x, y)
