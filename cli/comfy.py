"""`diffusioncleft comfy`: run ComfyUI workflows on a server, headless."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, number
from ..diffusioncleft_core.text import counted

if TYPE_CHECKING:
    from .comfyui.inputs import Graph
    from .comfyui.server import ComfyServer

HELP = "run a ComfyUI workflow on a server, once or for every row of a plan, and fetch what it makes"
EXAMPLES = """\
examples:
  diffusioncleft comfy run workflows/api/quick_start.json --out quick_start
  diffusioncleft comfy run graph.json --server http://gpu:8188 --out faces \\
      --set "KSampler.seed=5" --set "LoraLoaderModelOnly.lora_name=pre_op.safetensors"
  diffusioncleft comfy run graph.json --phantom --lora pre_op.safetensors --out faces
  diffusioncleft comfy run graph.json --plan plan.jsonl --out faces \\
      --prompt-input CLIPTextEncode.text --seed-input KSampler.seed
  diffusioncleft comfy batch graph.json --plan plan.jsonl --out faces \\
      --prompt-input CLIPTextEncode.text --seed-input KSampler.seed \\
      --server http://a:8188 --server http://b:8188
  diffusioncleft comfy inputs graph.json
  diffusioncleft comfy convert graph.json pre_op_api.json

NODE in NODE.INPUT is a node's id, title or class. Ctrl-C stops the queued prompt on the server too. With
--plan, the same command goes on where it stopped; rows that failed are tried again.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    run_ = actions.add_parser("run", help="queue a workflow, follow it and download its outputs")
    _add_workflow(run_)
    run_.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for what it makes")
    _add_patience(run_)
    _add_plan(run_.add_argument_group("every row of a plan"))
    batch = actions.add_parser("batch", help="run a workflow for every row of a plan, on several servers")
    _add_workflow(batch, several=True)
    batch.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for what it makes")
    _add_patience(batch)
    _add_plan(batch, required=True)
    inputs = actions.add_parser("inputs", help="list what --set can change in a workflow")
    _add_workflow(inputs)
    convert = actions.add_parser("convert", help="write a workflow in API format")
    _add_workflow(convert)
    convert.add_argument("api_file", type=Path, metavar="OUT", help="the file to write")


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    from ..diffusioncleft_core.outputs import check_output
    from .comfyui.server import DEFAULT_URL, PATIENCE, ComfyServer

    if args.action != "inputs":
        check_output(args.api_file if args.action == "convert" else args.out / "file")
    urls = args.server if isinstance(args.server, list) else [args.server or DEFAULT_URL]
    servers = [ComfyServer(url, vars(args).get("patience", PATIENCE)) for url in urls]
    if len({server.url for server in servers}) < len(servers):
        raise UserError("--server names one server twice: name each once")
    server = servers[0]
    graph, info = _graph(args, server)
    if args.action == "inputs":
        return _list_inputs(graph, info)
    if args.action == "convert":
        from ..diffusioncleft_core.files import write_json

        write_json(args.api_file, graph)
        print(f"wrote {args.api_file}")
        return 0
    if args.action == "run" and not args.plan:
        return _once(args, server, graph)
    for other in servers[1:]:
        _check_classes(other, graph)
    return _batch(args, servers, graph, info)


def _add_patience(parser: argparse.ArgumentParser) -> None:
    from .comfyui.server import PATIENCE

    parser.add_argument(
        "--patience",
        type=number(0, above=True),
        default=PATIENCE,
        metavar="S",
        help=f"seconds to wait for a lost server ({PATIENCE:g})",
    )


def _add_plan(batch: argparse._ActionsContainer, *, required: bool = False) -> None:
    batch.add_argument(
        "--plan",
        type=Path,
        required=required,
        metavar="FILE",
        help="a plan written by `diffusioncleft plan`",
    )
    batch.add_argument(
        "--prompt-input", required=required, metavar="NODE.INPUT", help="where a row's prompt goes"
    )
    batch.add_argument("--seed-input", metavar="NODE.INPUT", help="where a row's seed goes")
    batch.add_argument("--rows", type=COUNT, metavar="N", help="only the first N rows")
    batch.add_argument(
        "--ahead", type=COUNT, default=2, metavar="N", help="prompts in a server's queue at once (2)"
    )
    batch.add_argument(
        "--most-failures", type=COUNT, default=10, metavar="N", help="stop after N failed rows in a row (10)"
    )


def _add_workflow(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    from .comfyui.server import DEFAULT_URL

    parser.add_argument("workflow", type=Path, help="a workflow file, UI or API format")
    if several:
        parser.add_argument(
            "--server", action="append", required=True, metavar="URL", help="a server; once for each"
        )
    else:
        parser.add_argument("--server", metavar="URL", help=f"default {DEFAULT_URL}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="change an input; repeatable"
    )
    phantom = parser.add_argument_group("without model files")
    phantom.add_argument(
        "--phantom",
        action="store_true",
        help="put the embedded phantom model in place of the model loaders, at its size and LoRA strength",
    )
    phantom.add_argument("--lora", metavar="NAME", help="with --phantom: the LoRA, by its name on the server")


def _graph(args: argparse.Namespace, server: ComfyServer) -> tuple[Graph, dict[str, Any]]:
    from .comfyui.convert import to_api
    from .comfyui.inputs import apply_settings
    from .comfyui.run import read_workflow, server_info, swap_loaders

    if args.lora and not args.phantom:
        raise UserError("--lora belongs to --phantom; else write --set LoraLoaderModelOnly.lora_name=NAME")
    workflow = read_workflow(args.workflow)
    info = server_info(server)
    graph = to_api(workflow, info, str(args.workflow))
    if args.phantom:
        graph = swap_loaders(graph, info, lora=args.lora, settings=args.set)
    return apply_settings(graph, args.set, info), info


def _check_classes(server: ComfyServer, graph: Graph) -> None:
    """Raise UserError where a further server lacks a node of the graph."""
    from .comfyui.run import server_info

    missing = sorted({node["class_type"] for node in graph.values()} - server_info(server).keys())
    if missing:
        raise UserError(f"{server.url} has no node {missing[0]}: give every server the same custom nodes")


def _once(args: argparse.Namespace, server: ComfyServer, graph: Graph) -> int:
    from .comfyui.run import run_graph

    outputs = run_graph(server, graph, args.out, say=_say)
    files = sum(len(output.files) for output in outputs.values())
    told: set[str] = set()
    for node_id, output in outputs.items():
        given = output.values.get("text", [])
        for text in map(str, given if isinstance(given, list) else [given]):
            if text not in told:
                print(f"{node_id} {output.title}: {text}")
            told.add(text)
    print(f"{counted(files, 'file')}: {args.out}")
    return 0


def _batch(args: argparse.Namespace, servers: list[ComfyServer], graph: Graph, info: dict[str, Any]) -> int:
    from ..diffusioncleft_core.conditions.plan_rows import read_plan
    from .comfyui.batch import BatchLimits, RowGraph, run_batch
    from .comfyui.inputs import find_input

    if not args.prompt_input:
        raise UserError("--plan needs --prompt-input NODE.INPUT: where each row's prompt goes")
    rows = read_plan(args.plan)[: args.rows]
    result = run_batch(
        servers,
        RowGraph(
            graph,
            find_input(graph, args.prompt_input, info),
            find_input(graph, args.seed_input, info) if args.seed_input else None,
        ),
        rows,
        args.out,
        limits=BatchLimits(args.ahead, args.most_failures),
        say=_say,
    )
    print(
        f"{counted(result.made, 'row')} done, {result.skipped} done before, {len(result.failed)} failed: "
        f"{result.folder}"
    )
    if result.failed:
        shown = ", ".join(map(str, result.failed[:10])) + (" …" if len(result.failed) > 10 else "")
        raise UserError(
            f"{len(result.failed)} of {result.total} rows failed ({shown}); their messages are in "
            f"{result.folder}/batch.jsonl; the same command tries them again"
        )
    return 0


def _list_inputs(graph: Graph, info: dict[str, Any]) -> int:
    from .comfyui.inputs import inputs_of

    for node_id, node in graph.items():
        title = (node.get("_meta") or {}).get("title") or node["class_type"]
        print(f"{node_id}  {title}  [{node['class_type']}]")
        for declared in inputs_of(info[node["class_type"]]):
            if declared.is_widget:
                value = node["inputs"].get(declared.name)
                shown = f"from node {value[0]}" if isinstance(value, list) else repr(value)
                print(f"    {node_id}.{declared.name} = {shown}  ({declared.kind})")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)
