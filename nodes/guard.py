"""Stands in ComfyUI's server: keeps it from handing out photographs, and sends graphs through `door`.

Its route for pictures of models (`/experiment/models/preview/<type>/<number>/<file>`) follows `..` and
absolute names out of the models folder to any picture on the machine. A middleware refuses that, and refuses
the private folders even where a link leads to them. `file_names` does the same for names in graphs. And it
puts the pack's templates in order.
"""

import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import folder_paths

from . import door, file_names, places

_ROUTE = "/experiment/models/preview/"
_QUEUE = ("/prompt", "/api/prompt")
_WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
_TEMPLATES = ("/workflow_templates", "/api/workflow_templates")


def install() -> None:
    """Put the middlewares into ComfyUI's server; called once, when the pack is loaded."""
    file_names.contain()
    from aiohttp import web
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return  # the nodes are loaded without a server: nothing is served

    @web.middleware
    async def refuse_photographs(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if _ROUTE in request.path and not may_be_shown(request.match_info):
            return web.Response(status=404)
        return await handler(request)

    @web.middleware
    async def order_templates(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        answer = await handler(request)
        if request.path in _TEMPLATES and isinstance(getattr(answer, "text", None), str):
            return web.json_response(in_order(json.loads(answer.text)))
        return answer

    @web.middleware
    async def check_graphs(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if request.method == "POST" and request.path in _QUEUE:
            try:
                body = await request.json()
            except ValueError:
                return await handler(request)  # ComfyUI says what is wrong with it
            refused = await door.refusal(body)
            if refused is not None:
                return web.json_response(refused, status=400)
        return await handler(request)

    try:
        server.app.middlewares.extend([refuse_photographs, order_templates, check_graphs])
    except RuntimeError:
        logging.warning(
            "DiffusionCleft was loaded into a running server and can't guard it: its route %s shows every "
            "picture on this machine to whoever reaches the server, and graphs are queued unchecked",
            _ROUTE,
        )


def in_order(templates: Any) -> Any:
    """ComfyUI's list of templates by pack, our own by name: the disk gives them in any order."""
    ours = sorted(path.stem for path in _WORKFLOWS.glob("*.json"))
    listed = templates.items() if isinstance(templates, dict) else ()
    return {pack: ours if sorted(names) == ours else names for pack, names in listed} or templates


def may_be_shown(match: Any) -> bool:
    """Whether the file that the route's parts name lies in the folder they name, and in no private one."""
    try:
        root = folder_paths.folder_names_and_paths[match["folder"]][0][int(match["path_index"])]
        # By name alone: a models folder may well be a link to another disk.
        path = os.path.normpath(os.path.join(root, match["filename"]))  # noqa: PTH118
        resolved = Path(path).resolve()
    except (KeyError, IndexError, ValueError, OSError):
        return False
    if not Path(path).is_relative_to(os.path.normpath(root)):
        return False
    private = [folder.resolve() for kind in places.PRIVATE for folder in places.roots(kind)]
    return not any(resolved.is_relative_to(folder) for folder in private)
