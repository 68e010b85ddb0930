"""Write workflows/*.json and workflows/api/*.json from the node definitions of a running ComfyUI server.

    .venv/bin/python scripts/build_workflows.py --server http://127.0.0.1:8188

Run it after a node's inputs or outputs changed; the tests tell when that is due.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from workflow_graphs import FILES, build_all  # noqa: E402

from diffusioncleft.cli.comfyui.convert import to_api  # noqa: E402
from diffusioncleft.cli.comfyui.run import server_info  # noqa: E402
from diffusioncleft.cli.comfyui.server import DEFAULT_URL, ComfyServer  # noqa: E402
from diffusioncleft.diffusioncleft_core.files import write_json  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default=DEFAULT_URL)
    parser.add_argument("--out", type=Path, default=HERE.parent / "workflows")
    args = parser.parse_args()
    info = server_info(ComfyServer(args.server))
    for name, graph in build_all(info).items():
        workflow = graph.ui()
        write_json(args.out / f"{FILES[name]}.json", workflow)
        write_json(args.out / "api" / f"{name}.json", to_api(workflow, info, name))
        print(name, len(graph.nodes), "nodes")


if __name__ == "__main__":
    main()
