"""Keeps ComfyUI's own server from handing out photographs.

Its route for pictures of models (`/experiment/models/preview/<type>/<number>/<file>`) follows `..` and
absolute names out of the models folder to any picture on the machine. A middleware refuses that, and refuses
the private folders even where a link leads to them.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import folder_paths

from . import places

_ROUTE = "/experiment/models/preview/"


def install() -> None:
    """Put the middleware into ComfyUI's server; called once, when the pack is loaded."""
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

    try:
        server.app.middlewares.append(refuse_photographs)
    except RuntimeError:
        logging.warning(
            "DiffusionCleft was loaded into a running server and can't guard it: its route %s shows every "
            "picture on this machine to whoever reaches the server",
            _ROUTE,
        )


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
    private = [folder.resolve() for kind in (places.DATASETS, places.RUNS) for folder in places.roots(kind)]
    return not any(resolved.is_relative_to(folder) for folder in private)
