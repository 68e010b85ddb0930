"""Private image sets from photographs: ingest, checks, consent, captions, hold-out, manifest, purge."""

from .build import BuildResult, build_dataset
from .manifest import MANIFEST, ImageRow, read_image_set, read_manifest, write_manifest
from .purge import PurgeResult, derived_files, purge_dataset
from .readmit import readmit
from .reasons import OVERRULABLE, REASONS, SetAside
from .settings import BuildSettings

__all__ = [
    "MANIFEST",
    "OVERRULABLE",
    "REASONS",
    "BuildResult",
    "BuildSettings",
    "ImageRow",
    "PurgeResult",
    "SetAside",
    "build_dataset",
    "derived_files",
    "purge_dataset",
    "read_image_set",
    "read_manifest",
    "readmit",
    "write_manifest",
]
