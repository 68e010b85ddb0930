"""Text files of people: every usual encoding gives the right letters, and what can't be told is refused."""

import ast
import json

import pytest

from diffusioncleft.diffusioncleft_core.conditions.loader import EMBEDDED, load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import PlanRow, read_plan, write_plan
from diffusioncleft.diffusioncleft_core.dataset.folder_consent import STATEMENT, table_and_photographs
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER, read_pack
from diffusioncleft.diffusioncleft_core.files import read_json, read_jsonl
from diffusioncleft.diffusioncleft_core.imageset.captions import CaptionFiles
from diffusioncleft.diffusioncleft_core.imageset.decode import Rejected
from diffusioncleft.diffusioncleft_core.imageset.places import list_images
from diffusioncleft.diffusioncleft_core.text import decoded, nearest, read_text
from diffusioncleft.trainer.dataset_toml import read_dataset_config, read_toml

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom")
WESTERN = (
    "[CLP] a girl’s face – café",
    "Zoë’s naïve Größe, Ångström",
    "“quoted”, «\u00a0cité\u00a0», ¿qué?",
    "20° ± 3 cm³, ½ face",
    "Éric Ève, œuvre, GRÖSSE",
)
OTHERS = (
    ("Лицо ребёнка", "cp1251"),
    ("лицо и", "koi8-r"),
    ("тест", "cp866"),
    ("Πρόσωπο", "cp1253"),
    ("中", "gbk"),
    ("顔の写真", "shift_jis"),
    ("얼굴", "euc-kr"),
    ("łódź dół", "cp1250"),
    ("the girl’s café", "mac-roman"),
    ("Mädchen", "cp437"),
)


def in_encoding(text, encoding):
    marks = {"utf-16-le-bom": b"\xff\xfe", "utf-16-be-bom": b"\xfe\xff"}
    return marks.get(encoding, b"") + text.encode(encoding.removesuffix("-bom"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_unicode_is_read_with_and_without_its_mark(encoding):
    assert decoded(in_encoding("a girl’s face – 顔 🙂", encoding), "a.txt") == ("a girl’s face – 顔 🙂", None)


@pytest.mark.parametrize("text", WESTERN)
def test_windows_1252_is_read_where_it_can_be_told_and_said(text):
    found = decoded(text.encode("cp1252"), "a.txt")
    assert found.text == text and "a.txt is not UTF-8 and was read as Windows-1252" in found.notice


@pytest.mark.parametrize(("text", "encoding"), OTHERS)
def test_an_encoding_that_cannot_be_told_is_refused_with_the_files_name(text, encoding):
    with pytest.raises(UserError, match=r"a.txt is not UTF-8, and its bytes .*; save it as UTF-8"):
        decoded(text.encode(encoding), "a.txt")


@pytest.mark.parametrize(
    "data",
    [
        "a girl’s face".encode()[:-7],  # torn within a letter
        "a girl’s ".encode() + "café".encode("cp1252"),  # two encodings
        "UTF-16".encode("utf-16-le"),  # without its mark
        "Zoë".encode("utf-16-le"),
        "UTF-32".encode("utf-32"),
        b"\xff\xfea",
        b"a\0b",
    ],
)
def test_damaged_and_binary_data_are_refused_with_what_to_do(data):
    with pytest.raises(UserError, match=r"a.txt .*save it as UTF-8"):
        decoded(data, "a.txt")


@pytest.mark.parametrize("kind", ["missing", "folder", "long"])
def test_what_cannot_be_opened_is_one_sentence(tmp_path, kind):
    path = {"missing": tmp_path / "a", "folder": tmp_path, "long": tmp_path / ("n" * 300)}[kind]
    for read in (read_text, read_json, read_jsonl, read_toml, load_vocabulary):
        with pytest.raises(UserError, match="check"):
            read(path)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_file_of_a_user_is_read_in_every_encoding(tmp_path, encoding):
    def write(name, text):
        (tmp_path / name).write_bytes(in_encoding(text, encoding))
        return tmp_path / name

    accent = {"title": "Größe"}
    assert read_json(write("a.json", json.dumps(accent, ensure_ascii=False))) == accent
    row = PlanRow(0, "[CLP] Zoë, naïve", 5, {}, "pre_op")
    write_plan(tmp_path / "plain.jsonl", [row, row])
    text = (tmp_path / "plain.jsonl").read_text(encoding="utf-8")
    assert read_plan(write("plan.jsonl", text)) == [row, row]
    vocabulary = EMBEDDED.read_text(encoding="utf-8")
    title = load_vocabulary().title
    own = load_vocabulary(write("own.toml", vocabulary.replace(f'"{title}"', '"Größe"', 1)))
    assert own.title == "Größe"
    config = write("dataset.toml", '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "Größe"\n')
    assert read_dataset_config(config)[0][0].image_dir == tmp_path / "Größe"
    (tmp_path / "det.onnx").symlink_to(PHANTOM_FOLDER / "det.onnx")
    write("pack.json", '{"name": "Größe", "det_size": 128}')
    assert (read_pack(tmp_path).name, read_pack(tmp_path).det_size) == ("Größe", 128)


@pytest.mark.parametrize("read", [read_json, read_jsonl, read_toml, load_vocabulary, read_text])
def test_json_and_toml_in_windows_1252_are_refused_and_no_letter_is_guessed(tmp_path, read):
    path = tmp_path / "own.file"
    path.write_bytes('{"title": "Größe"}\n'.encode("cp1252"))
    with pytest.raises(UserError, match=rf"{path} is not UTF-8; save it as UTF-8"):
        read(path)


def test_a_statement_of_consent_in_windows_1252_is_read_and_said(tmp_path):
    name = tmp_path / "CONSENT.txt"
    name.write_bytes(f"{STATEMENT}\nKlinik für Kieferchirurgie".encode("cp1252"))
    table, _ = table_and_photographs(tmp_path, None)
    assert table.statement.endswith("Klinik für Kieferchirurgie")
    (notice,) = table.notices
    assert notice.startswith(f"{name} is not UTF-8 and was read as Windows-1252; check accents")


def test_a_line_torn_within_a_letter_is_left_out_and_one_in_the_middle_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    line = '{"a": "’"}'.encode()
    path.write_bytes(b'{"a": 1}\n' + line[:-3])
    assert read_jsonl(path) == [{"a": 1}]
    path.write_bytes(line[:-3] + b'\n{"a": 1}\n')
    with pytest.raises(UserError, match=f"line 1 of {path} is not UTF-8"):
        read_jsonl(path)


@pytest.mark.parametrize("name", [r"C:\photos", r"C:\users\x", r"C:\new", r"C:\temp"])
def test_a_windows_path_in_double_quotes_gets_the_hint(tmp_path, name):
    path = tmp_path / "dataset.toml"
    path.write_text(f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{name}"\n')
    with pytest.raises(UserError, match=r"dataset.toml.*single quotes .* forward slashes"):
        read_dataset_config(path)
    path.write_text(f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{name}'\n")
    assert str(read_dataset_config(path)[0][0].image_dir).endswith(name)


@pytest.mark.parametrize(
    "name", ["photo.txt", "photo.TXT", "photo.Txt", "photo.png.txt", "photo.PNG.TXT", "photo.png.Txt"]
)
def test_a_captions_suffix_counts_in_any_case_and_behind_the_images(tmp_path, name):
    image = "photo.PNG" if "PNG" in name else "photo.png"
    (tmp_path / name).write_text(" a\n girl ")
    captions = CaptionFiles(tmp_path)
    assert captions.read(image) == "a girl" and captions.notices([image], "") == []


def test_captions_under_other_suffixes_are_named_as_not_read(tmp_path):
    (tmp_path / "a.caption").write_text("a girl")
    (tmp_path / "b.png.tags").write_text("a girl")
    (tmp_path / "c.caption").write_text("another")
    (tmp_path / "c.txt").write_text("a girl")
    captions, images = CaptionFiles(tmp_path), ["a.png", "b.png", "c.png"]
    assert [captions.read(name) for name in images] == [None, None, "a girl"]
    (notice,) = captions.notices(images, "rename them to end in .txt")
    assert "were not read (2): a.caption, b.png.tags; rename them to end in .txt" in notice
    assert CaptionFiles(tmp_path, ".caption").read("c.png") == "another"


def test_a_link_in_a_circle_costs_neither_captions_nor_images(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "a.txt").write_text("a girl")
    (tmp_path / "a.png").write_bytes(b"")
    assert (
        CaptionFiles(tmp_path).read("a.png") == "a girl" and CaptionFiles(tmp_path).read("loop.png") is None
    )
    assert "a.png" in list_images(tmp_path).images


def test_two_captions_that_differ_are_refused_and_equal_ones_are_one(tmp_path):
    (tmp_path / "a.txt").write_text("a girl")
    (tmp_path / "a.png.txt").write_text("a  girl\n")
    assert CaptionFiles(tmp_path).read("a.png") == "a girl"
    (tmp_path / "a.png.txt").write_text("a boy")
    with pytest.raises(Rejected, match=r"a.txt and a.png.txt differ; keep one"):
        CaptionFiles(tmp_path).read("a.png")


OWN_FILES = {
    "diffusioncleft_core/text.py": "the reader",
    "diffusioncleft_core/files.py": "the reader's JSON, and our own cache",
    "diffusioncleft_core/environment.py": "/proc",
    "diffusioncleft_core/flux/components.py": "shipped",
    "diffusioncleft_core/flux/lora_file.py": "a safetensors header",
    "diffusioncleft_core/flux/tensors.py": "a tensor",
    "diffusioncleft_core/imageset/cache.py": "our own cache",
    "diffusioncleft_core/imageset/spool.py": "our own rows",
    "diffusioncleft_core/phantom/oracle.py": "shipped",
    "diffusioncleft_core/report/html.py": "shipped",
    "diffusioncleft_core/study/web/server.py": "our own address",
    "diffusioncleft_core/study/web/signin.py": "our own secret",
    "diffusioncleft_core/study/web/store.py": "our own database",
    "diffusioncleft_core/weights/registry.py": "shipped",
    "nodes/guard.py": "our own answer",
    "nodes/phantom_objects.py": "shipped",
    "trainer/checkpoint.py": "a safetensors header",
    "trainer/launch.py": "the trainer's events",
    "trainer/metadata.py": "a safetensors header",
    "cli/comfyui/outputs.py": "a server's answer",
    "cli/comfyui/watch.py": "a server's answer",
}
"""Files that read text, JSON or TOML by themselves, and what it is."""


def test_every_file_that_a_user_brings_goes_through_the_one_reader(repository):
    found = set()
    for top in ("diffusioncleft_core", "trainer", "nodes", "cli"):
        for path in (repository / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else None
                own = node.func.attr == "read_text" or (
                    node.func.attr in ("load", "loads") and owner in ("json", "tomllib")
                )
                if own:
                    found.add(path.relative_to(repository).as_posix())
    assert found == set(OWN_FILES)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        *[("drak", "dark"), ("PALE", "pale"), ("mediun", "medium"), ("ligth", "light")],
        *[("purple", None), ("green", None), ("", None), ("x", None)],
    ],
)
def test_only_a_near_name_is_offered(wanted, meant):
    assert nearest(wanted, ["light", "pale", "medium", "fair", "dark", "olive"]) == meant
