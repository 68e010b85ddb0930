"""A model's folder: the classifiers of one training, one a seed, and `model.json`, which says what they are.

Neither names a file, a folder or a person, and no number in them is a hash of a picture:

    schema, kind          1, "diffusioncleft downstream model"
    task                  the task, whole
    classifier            "paper" or "probe", and its settings
    backbone              its name in the registry and what is known of its weights
    crop                  margin, side, landmarks (5, 68 or 106); pack: the face models' sha256
    phantom               whether it was trained on phantoms
    trained_on            {"positive": n, "negative": n, "people": n, "not_found": n}, of photographs 1 to 4
                          are null
    loras                 of each LoRA that drew the images, all by which they know it
    bare                  whether some images are of a folder that is neither a dataset nor generated
    fingerprint           by which the datasets that it learned from know the training; it means nothing
                          without them; null where it learned from none
    trainings             one a seed: seed, file, sha256 of the file, and how the training went
    versions              of Python and the libraries

Beside them lies `learned.private.json`, which is for nobody else (`learned.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..environment import versions
from ..errors import UserError
from ..files import atomic_path, read_json, sha256_file, write_json
from ..small_counts import told
from ..weights.backbones import LOCAL, PROBE, Backbone, load_backbone
from .cropper import Cropper
from .crops import Crops, View, joined
from .leak import drawing_names
from .learned import LearnedPictures
from .model_check import wrong_part
from .probe import Probe
from .task import Task
from .training import Classifier, Top, TrainSettings, frozen_part_of

if TYPE_CHECKING:
    import torch

SCHEMA = 1
KIND = "diffusioncleft downstream model"
FILE_NAME = "model.json"
BARE = "the classifier (folders that are no dataset)"
"""Whose training photographs nothing tells the people of."""
_AGAIN = "train it again: diffusioncleft downstream train"


def weights_name(seed: int) -> str:
    """The file of one seed's weights."""
    return f"seed-{seed}.safetensors"


def save_classifier(folder: Path, classifier: Classifier) -> dict[str, Any]:
    """Write one classifier's weights; returns its entry among `trainings`."""
    from safetensors.torch import save_file

    path = Path(folder) / weights_name(classifier.seed)
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in classifier.top.tensors().items()}, temporary)
    return {
        "seed": classifier.seed,
        "file": path.name,
        "sha256": sha256_file(path),
        **classifier.facts,
    }


def write_model(
    folder: Path,
    classifiers: Sequence[Classifier],
    positive: Crops,
    negative: Crops,
    cropper: Cropper,
    fingerprint: str | None = None,
) -> dict[str, Any]:
    """Write the classifiers, what they learned from and, last of all, `model.json`; returns its content.

    Args:
        folder: made if need be; what an earlier training left of the same names is replaced.
        classifiers: of one task, backbone and settings, one a seed.
        positive, negative: what they learned from.
        cropper: cut the crops.
        fingerprint: by which datasets know the training.
    """
    first = classifiers[0]
    backbone = first.part.backbone
    LearnedPictures.of((*positive.pictures, *negative.pictures)).write(folder)
    document = {
        "schema": SCHEMA,
        "kind": KIND,
        "task": first.task.to_json(),
        "classifier": first.settings.to_json(),
        "backbone": {"backbone": backbone.name, **backbone.info.as_json()},
        "crop": cropper.describe(),
        "phantom": cropper.analyzer.phantom_only,
        "trained_on": counts_of(positive, negative),
        "loras": sorted(positive.loras | negative.loras),
        "bare": positive.bare or negative.bare,
        "fingerprint": fingerprint,
        "trainings": [save_classifier(folder, classifier) for classifier in classifiers],
        "versions": versions(),
    }
    write_json(Path(folder) / FILE_NAME, document)
    return document


def counts_of(positive: Crops, negative: Crops) -> dict[str, int | None]:
    """How many pictures and people a training had; of photographs 1 to 4 are None."""
    counts = {
        "positive": len(positive),
        "negative": len(negative),
        "people": len(set(joined([positive, negative]).people)),
        "not_found": positive.n_not_found + negative.n_not_found,
    }
    return dict(counts) if positive.phantom else {name: told(n) for name, n in counts.items()}


@dataclass(frozen=True)
class SavedModel:
    """What lies in a model's folder, read and checked, its weights not yet opened."""

    folder: Path
    document: Mapping[str, Any]
    task: Task
    settings: TrainSettings

    @property
    def phantom(self) -> bool:
        """Whether it was trained on phantoms."""
        return bool(self.document["phantom"])

    def describe(self) -> dict[str, Any]:
        """What it is, for the document of the evidence: plain values, none that names a place."""
        kept = ("classifier", "backbone", "crop", "trained_on", "loras", "fingerprint")
        return {name: self.document[name] for name in kept if name in self.document} | {"seeds": self.seeds}

    @property
    def seeds(self) -> list[int]:
        """Of its classifiers."""
        return [int(training["seed"]) for training in self.document["trainings"]]

    @property
    def learners(self) -> dict[str, tuple[str, ...]]:
        """What learned from photographs, itself and its images' LoRAs, and by what datasets know each.

        No dataset knows what it learned from in other folders.
        """
        found = {BARE: (), **self.loras} if self.document["bare"] else self.loras
        own = self.document["fingerprint"]
        return {"the classifier": (own,), **found} if own else found

    @property
    def loras(self) -> dict[str, tuple[str, ...]]:
        """The LoRAs of its images, as `leak.drawing_names`."""
        return drawing_names(self.document.get("loras") or ())

    def learned_pictures(self) -> LearnedPictures | None:
        """What it knows its own pictures by; None where the private file is not there."""
        return LearnedPictures.read(self.folder)

    @property
    def backbone_name(self) -> str:
        """As the registry or a local family calls it."""
        return str(self.document["backbone"]["backbone"])

    def check_faces(self, cropper: Cropper) -> None:
        """Raise UserError where the lips would be found by other means than in training."""
        if cropper.describe() != self.document["crop"]:
            raise UserError(
                f"the model {self.folder} was trained on crops of another face pack; "
                "name the one it was trained with (--faces)"
            )

    def classifiers(
        self, device: torch.device, own: Path | None = None, backbone: str | None = None
    ) -> list[Classifier]:
        """Open the classifiers.

        Args:
            device: where they work.
            own: a folder of weights that is searched first.
            backbone: where the backbone is a local folder, `timm:FOLDER` or `transformers:FOLDER`.

        Raises:
            UserError: a file is missing or not the one that was trained, or the backbone another.
        """
        name = backbone or self.backbone_name
        if name in LOCAL:
            raise UserError(
                f"the model {self.folder} stands on a {name} model of your own; "
                f"say where it lies: --backbone {name}:FOLDER"
            )
        found = load_backbone(name, device, own)
        if found.info.sha256 != self.document["backbone"]["sha256"]:
            raise UserError(
                f"the model {self.folder} stands on {self.document['backbone']['name']} with other weights "
                f"than {found.info.name} has here; name the backbone it was trained with (--backbone)"
            )
        return [self._classifier(training, found) for training in self.document["trainings"]]

    def _classifier(self, training: Mapping[str, Any], backbone: Backbone) -> Classifier:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / weights_name(int(training["seed"]))
        try:
            if sha256_file(path) != training["sha256"]:
                raise UserError(f"{path} is not the file that was trained; {_AGAIN}")
            top = _top(load_file(path), backbone, self.settings)
        except (OSError, SafetensorError, KeyError, RuntimeError, IndexError):
            raise UserError(f"{path} is missing or damaged; {_AGAIN}") from None
        part = frozen_part_of(backbone, self.settings)
        return Classifier(self.task, self.settings, int(training["seed"]), part, top)


def read_model(folder: Path) -> SavedModel:
    """Read a model's folder. Raises UserError where it is none, or damaged."""
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"{folder} is no downstream model (it has no {FILE_NAME}); give the folder that "
            "`diffusioncleft downstream train --out` wrote"
        )
    document = read_json(path)
    if not isinstance(document, dict) or (document.get("schema"), document.get("kind")) != (SCHEMA, KIND):
        raise UserError(f"{path} describes no downstream model of schema {SCHEMA}; {_AGAIN}")
    if (wrong := wrong_part(document)) is not None:
        raise UserError(f"{path} is damaged at {wrong}; {_AGAIN}")
    try:
        task = Task.from_json(document["task"])
    except (KeyError, TypeError):
        raise UserError(f"{path} is damaged at task; {_AGAIN}") from None
    try:
        settings = {**document["classifier"], "view": View(document["classifier"]["view"])}
        return SavedModel(Path(folder), document, task, TrainSettings(**settings))
    except (KeyError, TypeError, ValueError, UserError):
        raise UserError(f"{path} is damaged at classifier; {_AGAIN}") from None


def _top(tensors: dict[str, Any], backbone: Backbone, settings: TrainSettings) -> Top:
    if settings.kind == PROBE:
        return Probe.of_tensors(tensors)
    from .network import LipClassifier

    network = LipClassifier(backbone, settings.frozen)
    network.load_state_dict(tensors)
    return network.to(next(iter(backbone.stages.parameters())).device).eval()
