"""External models: what they are for, where they are looked for, whether they are sound, how they are got."""

from .find import Found, find_model, require_file
from .registry import Model, WeightFile, find_entry, read_registry

__all__ = ["Found", "Model", "WeightFile", "find_entry", "find_model", "read_registry", "require_file"]
