"""Private image sets from photographs: ingest, checks, consent, captions, hold-out, manifest, purge."""

from ..imageset.decode import OVERRULABLE, REASONS, SetAside
from ..imageset.manifest import MANIFEST, ImageRow, read_image_set, read_manifest, write_manifest
from .build import BuildResult, build_dataset
from .corrections import readmit
from .folder import PurgeResult, derived_files, purge_dataset
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
