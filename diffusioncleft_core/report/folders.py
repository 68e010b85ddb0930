"""What lies where in a run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..conditions.names import RunOwn
from ..conditions.vocabulary import Condition
from ..dataset.folder import is_dataset
from ..imageset.places import RUN_PRIVATE, RUN_STAGES
from ..recipe.document import FILE_NAME


@dataclass(frozen=True)
class RunFolders:
    """The run's folder. Only `private`, its own and a rater study's, holds what comes from photographs."""

    root: Path

    @property
    def private(self) -> Path:
        return self.root / RUN_PRIVATE

    @property
    def stages(self) -> Path:
        return self.private / RUN_STAGES

    def photographs(self, condition: str) -> Path:
        return self.private / RunOwn.PHANTOM_PHOTOGRAPHS / condition

    def dataset(self, condition: str) -> Path:
        return self.private / condition

    def datasets(self) -> list[Path]:
        """Those that were built, also of conditions of earlier calls."""
        return sorted(path for path in self.private.glob("*") if is_dataset(path))

    def regularization(self, condition: str) -> Path:
        return self.root / "regularization" / condition

    def training(self, condition: str) -> Path:
        return self.root / "loras" / condition

    def losses(self, condition: str) -> Path:
        return self.training(condition) / "loss.jsonl"

    def trainings(self) -> list[Path]:
        """The training folders that are there, also of conditions of earlier calls."""
        return sorted(path for path in (self.root / "loras").glob("*") if path.is_dir())

    def lora(self, condition: Condition) -> Path:
        return self.training(condition.name) / f"{condition.trigger.lower()}.safetensors"

    def plan(self, condition: str) -> Path:
        return self.root / "plans" / f"{condition}.jsonl"

    def generated(self, condition: str) -> Path:
        return self.root / "generated" / condition

    @property
    def base(self) -> Path:
        """Faces of the base model alone, without any finding."""
        return self.root / "base"

    @property
    def faces(self) -> Path:
        """What was found in images, by content."""
        return self.private / RunOwn.FACES

    @property
    def downstream(self) -> Path:
        """What classifiers said of photographs."""
        return self.private / RunOwn.DOWNSTREAM

    def oracle(self, condition: str) -> Path:
        return self.root / "oracle" / condition

    def previews(self, condition: str) -> Path:
        return self.root / "plans" / f"{condition}.previews.txt"

    @property
    def study(self) -> Path:
        """The rater study of the run, where it has one."""
        return self.root / "study"

    @property
    def sheets(self) -> Path:
        return self.root / "sheets"

    @property
    def recipe(self) -> Path:
        return self.root / FILE_NAME

    @property
    def report(self) -> Path:
        return self.root / "report.json"

    @property
    def summary(self) -> Path:
        return self.root / "summary.md"
