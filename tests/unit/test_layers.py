"""The layers of the project: which room may import which, lazy imports and type-only ones included."""

import ast

import pytest

CORE = "diffusioncleft_core"
FOUNDATION = (
    *("errors", "files", "locks", "outputs", "home", "text", "weight_file", "small_counts"),
    *("progress", "interruption", "statistics", "environment", "ranges", "spreadsheet", "__version__"),
)
ROOMS = (
    ("conditions", "recipe", "cluster"),
    ("imageset", "flux"),
    ("faces",),
    ("dataset", "weights"),
    ("generation", "filters", "loras", "metrics", "downstream", "study"),
    ("audit",),
    ("phantom", "report"),
    ("run",),
)
"""Rooms of the core from the lowest up; a room imports lower ones, and of its own floor none."""
ABOVE = {
    "trainer": {CORE},
    "tools": {CORE, "trainer", "cli"},
    "nodes": {CORE, "trainer"},
    "cli": {CORE, "trainer"},
}
"""What stands on the core."""


@pytest.fixture(scope="module")
def imports(repository):
    """(file, room that imports, room that is imported) of every relative import."""
    found = []
    for top in (CORE, *ABOVE):
        for path in sorted((repository / top).rglob("*.py")):
            parts = path.relative_to(repository).parts
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level:
                    base = list(parts[: len(parts) - node.level])
                    target = [*base, *(node.module.split(".") if node.module else [])]
                    for name in node.names:
                        place = [*target, name.name]
                        found.append(("/".join(parts), room_of(parts), room_of(place)))
    return found


def room_of(parts):
    """`imageset` for a file of the core's room, `trainer` for one of a room beside the core."""
    if parts[0] != CORE:
        return parts[0]
    return parts[1].removesuffix(".py") if len(parts) > 1 else CORE


def floor_of(room):
    if room in FOUNDATION or room == CORE:
        return -1
    return next((floor for floor, rooms in enumerate(ROOMS) if room in rooms), None)


def test_every_room_of_the_core_stands_on_a_floor(repository):
    rooms = {path.parent.name for path in (repository / CORE).glob("*/__init__.py")}
    assert {room for room in rooms if floor_of(room) is None} == set()


def test_a_room_of_the_core_imports_lower_rooms_alone(imports):
    wrong = [
        f"{file}: {room} imports {target}"
        for file, room, target in imports
        if room != target
        and room not in ABOVE
        and floor_of(room) is not None
        and (floor_of(target) is None or floor_of(target) >= max(floor_of(room), 0))
    ]
    assert sorted(set(wrong)) == []


def test_what_stands_on_the_core_imports_what_it_may(imports):
    wrong = [
        f"{file}: {room} imports {target}"
        for file, room, target in imports
        if room in ABOVE and room != target and target in ABOVE and target not in ABOVE[room]
    ]
    assert sorted(set(wrong)) == []


def test_the_studys_page_and_its_statistics_know_nothing_of_each_other(repository):
    between = [
        f"{name} imports {target}"
        for name, targets in file_graph(repository).items()
        for target in targets
        for one, other in (("web", "statistics"), ("statistics", "web"))
        if name.startswith(f"{CORE}.study.{one}") and target.startswith(f"{CORE}.study.{other}")
    ]
    assert sorted(between) == []


def test_no_two_files_import_each_other_in_a_circle(repository):
    graph = file_graph(repository)
    state: dict[str, int] = {}
    circles = []

    def visit(name, path):
        state[name] = 1
        for target in sorted(graph.get(name, ())):
            if state.get(target) == 1:
                circles.append(" -> ".join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, [*path, target])
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, [name])
    assert circles == []


def file_graph(repository):
    """Which file imports which, by module name; a package stands for its `__init__`."""
    modules = {}
    for top in (CORE, *ABOVE):
        for path in sorted((repository / top).rglob("*.py")):
            parts = path.relative_to(repository).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in modules.items():
        parts = path.relative_to(repository).parts
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = [*parts[: len(parts) - node.level], *(node.module.split(".") if node.module else [])]
            for item in node.names:
                whole = ".".join([*base, item.name])
                graph[name].add(whole if whole in modules else ".".join(base))
        graph[name] = {target for target in graph[name] if target in modules and target != name}
    return graph
