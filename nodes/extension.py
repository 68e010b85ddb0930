"""The list of nodes that ComfyUI loads. What they work with is imported when they run."""

from comfy_api.latest import ComfyExtension, io

from . import guard, places
from .classifiers import EvaluateClassifier, TrainClassifier
from .dataset import Captions, LoadDataset, PhantomDataset
from .filters import ArtifactFilter, IdentityLeakFilter, ReferenceSet
from .grids import LoraGrid, PictureGrid
from .metrics import FaceIdentityRecognition, FrechetDistance, PerceptualDiversity, Report
from .phantom import PhantomLoader
from .prompts import PromptBuilder, PromptPlan
from .rater_study import RaterStudy, StudyResults
from .sets import LoadImageSet, SaveSyntheticSet
from .training import LoraTrainer, TrainingStatus
from .training_options import LoraTrainingOptions

NODES: list[type[io.ComfyNode]] = [
    PromptBuilder,
    PromptPlan,
    LoadDataset,
    PhantomDataset,
    Captions,
    LoraTrainer,
    LoraTrainingOptions,
    TrainingStatus,
    LoraGrid,
    PictureGrid,
    PhantomLoader,
    ArtifactFilter,
    IdentityLeakFilter,
    ReferenceSet,
    FaceIdentityRecognition,
    FrechetDistance,
    PerceptualDiversity,
    Report,
    TrainClassifier,
    EvaluateClassifier,
    RaterStudy,
    StudyResults,
    LoadImageSet,
    SaveSyntheticSet,
]


class DiffusionCleftExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        places.register()
        guard.install()
        return NODES
