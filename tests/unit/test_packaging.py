"""The same files work installed, as a wheel, and dropped into a folder of any name; the metadata agrees."""

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from diffusioncleft.cli import main as cli
from diffusioncleft.diffusioncleft_core import __version__

SUBPACKAGES = ("cli", "nodes", "trainer", "diffusioncleft_core")
LOAD_AS_COMFYUI_DOES = """
import asyncio, importlib, importlib.util, inspect, os, sys
folder = sys.argv[1]
name = folder.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, os.path.join(folder, "__init__.py"))
pack = importlib.util.module_from_spec(spec)
sys.modules[name] = pack
spec.loader.exec_module(pack)
"""


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dropped(repository, tmp_path_factory):
    """A copy of the pack in a folder whose name is no Python name."""
    folder = tmp_path_factory.mktemp("custom nodes") / "diffusion-cleft.main"
    folder.mkdir()
    skip = shutil.ignore_patterns("__pycache__", ".writing-*")
    for name in SUBPACKAGES:
        shutil.copytree(repository / name, folder / name, ignore=skip)
    for name in ("__init__.py", "__main__.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, folder / name)
    return folder


def python(*arguments, **settings):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=300,
        **settings,
    )


def test_the_quick_start_names_the_two_commands_that_set_everything_up(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    start = readme.split("\n## Quick start\n")[1].split("\n## ")[0]
    named = re.findall(r"^make (\w+)$", start, re.MULTILINE)
    assert named == ["demo", "test"]
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{name}: $(READY)\n" in makefile for name in named)


def requirements(lines):
    """Name and the rest (version, marker) of each requirement, comments left out."""
    found = {}
    for line in lines:
        text = line.partition("#")[0].strip()
        if text:
            name, rest = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", text).groups()
            found[re.sub(r"[-_.]+", "-", name).lower()] = rest.strip()
    return found


def all_requirements(project):
    extras = project["project"]["optional-dependencies"].values()
    return requirements([*project["project"]["dependencies"], *itertools.chain(*extras)])


def test_the_pack_loads_from_a_folder_of_any_name_without_torch_or_comfyui(dropped):
    code = LOAD_AS_COMFYUI_DOES + (
        "assert inspect.iscoroutinefunction(pack.comfy_entrypoint)\n"
        "assert not hasattr(pack, 'NODE_CLASS_MAPPINGS')\n"
        "cli = importlib.import_module(name + '.cli.main')\n"
        "for module in cli.COMMANDS.values():\n"
        "    importlib.import_module(module, cli.__package__)\n"
        "assert 'diffusioncleft' not in sys.modules\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'cv2', 'onnxruntime', 'insightface', 'comfy_api'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = python("-I", "-c", code, dropped)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_folder_itself_runs_where_nothing_is_installed(dropped, tmp_path):
    code = (
        "import runpy, sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "sys.argv = [sys.argv[1], '--version']\n"
        "sys.path.insert(0, sys.argv[0])\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as exit_: assert not exit_.code\n"
        "assert sys.argv[0] not in sys.path\n"
        "print(sys.modules['diffusioncleft'].__file__)\n"
    )
    done = python("-I", "-c", code, dropped, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"diffusioncleft {__version__}", str(dropped / "__init__.py")]
    assert python("-I", dropped, "trian", cwd=tmp_path).returncode == 2


@pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="COMFYUI_PATH names no ComfyUI checkout")
def test_comfyui_takes_the_extension(dropped, tmp_path):
    code = LOAD_AS_COMFYUI_DOES + (
        "sys.path.insert(0, sys.argv[2]); sys.argv = ['main.py', '--cpu']\n"
        "from comfy_api.latest import ComfyExtension\n"
        "extension = asyncio.run(pack.comfy_entrypoint())\n"
        "assert isinstance(extension, ComfyExtension)\n"
    )
    done = python("-c", code, dropped, os.environ["COMFYUI_PATH"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_wheel_holds_every_module_and_every_data_file_and_nothing_else(dropped, tmp_path):
    source = shutil.copytree(dropped, tmp_path / "source")
    done = python(
        "-m",
        "pip",
        "wheel",
        source,
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-q",
        "-w",
        tmp_path / "wheel",
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    assert wheel.name == f"diffusioncleft-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry_points,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert b"diffusioncleft = diffusioncleft.cli.main:main" in archive.read(entry_points)
    expected = {"diffusioncleft/__init__.py", "diffusioncleft/__main__.py"} | {
        f"diffusioncleft/{path.relative_to(dropped).as_posix()}"
        for name in SUBPACKAGES
        for path in (dropped / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == expected


def test_the_package_list_names_every_package(project, repository):
    found = {"diffusioncleft"} | {
        "diffusioncleft." + path.parent.relative_to(repository).as_posix().replace("/", ".")
        for name in SUBPACKAGES
        for path in (repository / name).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_imports_inside_the_package_are_relative_and_point_to_the_core(repository):
    wrong = []
    for name in SUBPACKAGES:
        for path in (repository / name).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                wrong += [
                    f"{path.name}:{node.lineno}"
                    for target in imported(node)
                    if not allowed(name, path, target)
                ]
    assert wrong == []


def imported(node):
    if isinstance(node, ast.Import):
        return [(0, alias.name) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.level, node.module or "")]
    return []


def allowed(package, path, target):
    level, module = target
    first = module.partition(".")[0]
    if level == 0:
        if package == "nodes":  # `import nodes` is ComfyUI's own file
            return first not in {"diffusioncleft", *SUBPACKAGES} - {"nodes"}
        return first not in {"diffusioncleft", *SUBPACKAGES} and not first.startswith("comfy")
    depth = len(path.parts) - path.parts.index(package) - 1
    if level <= depth:
        return True
    return level == depth + 1 and (
        first == "diffusioncleft_core"
        or (package in ("cli", "nodes", "trainer") and first in ("nodes", "trainer"))
    )


def test_the_version_stands_in_one_form_everywhere(project, repository):
    assert project["project"]["version"] == __version__
    assert f"\nversion: {__version__}\n" in (repository / "CITATION.cff").read_text(encoding="utf-8")


def test_comfyuis_requirements_repeat_the_projects_and_leave_torch_alone(project, repository):
    text = (repository / "requirements.txt").read_text(encoding="utf-8")
    ours = requirements(text.splitlines())
    extras = project["project"]["optional-dependencies"]
    wanted = ("faces", "filters", "metrics", "downstream", "study-results", "train", "comfy")
    declared = requirements(
        [*project["project"]["dependencies"], *itertools.chain(*(extras[name] for name in wanted))]
    )
    comfyuis = {"torch", "torchvision", "numpy"}
    assert all(declared[name] == "" for name in comfyuis)
    assert set(ours) == set(declared) - comfyuis
    for name, rest in ours.items():
        assert rest.partition(";")[0].strip() == declared[name], name


def test_the_lock_pins_all_that_the_tests_need_in_versions_a_registry_has(project, repository):
    lock = requirements((repository / "constraints.txt").read_text(encoding="utf-8").splitlines())
    needed = all_requirements(project)
    assert set(needed) - {"diffusioncleft"} <= set(lock)
    assert all(re.fullmatch(r"==[0-9][0-9A-Za-z.]*", version) for version in lock.values())


def test_there_is_one_opencv(project, repository):
    """rapidocr brings the headless wheel beside insightface's: in one version they are one cv2."""
    needed = all_requirements(project)
    assert [name for name in needed if name.startswith("opencv")] == ["opencv-python"]
    lock = requirements((repository / "constraints.txt").read_text(encoding="utf-8").splitlines())
    locked = {name: version for name, version in lock.items() if name.startswith("opencv")}
    assert set(locked) == {"opencv-python", "opencv-python-headless"} and len(set(locked.values())) == 1


def test_cv2_is_whole_with_both_of_its_wheels_installed(offline_env):
    """Two wheels unpacked over each other leave a cv2 that imports, draws, warps and detects contours."""
    code = (
        "import cv2, numpy as np, insightface.app\n"
        "picture = np.zeros((32, 32, 3), np.uint8)\n"
        "cv2.putText(picture, 'A', (4, 28), cv2.FONT_HERSHEY_DUPLEX, 1, (255, 255, 255))\n"
        "cv2.warpAffine(picture, np.eye(2, 3), (16, 16)); cv2.minAreaRect(np.zeros((4, 1, 2), np.int32))\n"
        "assert cv2.findContours(picture[..., 0].copy(), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]\n"
        "print(cv2.__version__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=offline_env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_console_script_is_the_module(command):
    script = Path(sys.executable).with_name("diffusioncleft.exe" if os.name == "nt" else "diffusioncleft")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == command("--version").stdout == f"diffusioncleft {__version__}\n"


def test_a_command_costs_no_torch_and_no_file_systems_until_it_runs(offline_env):
    code = (
        "import sys; from diffusioncleft.cli import main as cli\n"
        "for name in cli.COMMANDS: cli._command_parser(name, cli._load(name))\n"
        "sys.exit('torch' in sys.modules or 'fsspec' in sys.modules)"
    )
    assert python("-c", code, env=offline_env).returncode == 0
    assert len(cli.COMMANDS) >= 10


def test_what_every_command_on_photographs_imports_costs_no_statistics_library(offline_env):
    """scipy.stats takes a second, a third of the time of a small `dataset build`."""
    code = (
        "import importlib, sys\n"
        "for name in ('faces.analyzer', 'dataset.build', 'run.withdrawal', 'report.html'):\n"
        "    importlib.import_module(f'diffusioncleft.diffusioncleft_core.{name}')\n"
        "sys.exit('scipy.stats' in sys.modules)"
    )
    assert python("-c", code, env=offline_env).returncode == 0


def test_the_nodes_import_each_other_in_no_circle(repository):
    """Imports inside functions are counted too: they only hide a circle."""
    files = {path.stem: path for path in (repository / "nodes").glob("*.py")}
    imports: dict[str, set[str]] = {}
    for name, path in files.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                found |= {node.module} if node.module else {alias.name for alias in node.names}
        imports[name] = found & files.keys()
    for name in files:
        reached, waiting = set(), [*imports[name]]
        while waiting:
            other = waiting.pop()
            if other not in reached:
                reached.add(other)
                waiting += imports[other]
        assert name not in reached, f"nodes/{name}.py imports itself through others"
