"""`python -m diffusioncleft`, and `python PATH/TO/diffusioncleft` where the pack is not installed."""

import sys


def _load_pack() -> None:
    """Give this script its parent package when Python was pointed at the folder instead of the package."""
    import importlib.util
    from pathlib import Path

    root = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != root]
    spec = importlib.util.spec_from_file_location(
        "diffusioncleft", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{root} is not the diffusioncleft folder: __init__.py is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules["diffusioncleft"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    if not __package__:
        _load_pack()
        __package__ = "diffusioncleft"
    from .cli.main import main

    sys.exit(main())
