"""External models: what they are for, where they are looked for, whether they are sound, how they are got."""

from .registry import Found, Model, WeightFile, find_entry, find_model, read_registry, require_file

__all__ = ["Found", "Model", "WeightFile", "find_entry", "find_model", "read_registry", "require_file"]
