"""The vocabulary file: what it must say, what is refused, and another anomaly as one more file."""

import ast
import hashlib
import json
import re
from pathlib import Path

import pytest

from diffusioncleft.diffusioncleft_core import conditions
from diffusioncleft.diffusioncleft_core.conditions.grammar import Grammar, words_of
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.names import CONTROL, HEALTHY, RunOwn
from diffusioncleft.diffusioncleft_core.conditions.plan import AttributeChoices, sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.prompts import build_caption, build_prompt
from diffusioncleft.diffusioncleft_core.conditions.vocabulary import LANDMARKS
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.generation.plans import regularization_plan
from diffusioncleft.diffusioncleft_core.phantom.experiment import OTHER_TRIGGER, trigger_cells

TABLE_1 = {
    "skin": {"light", "pale", "medium", "fair", "dark", "olive"},
    "eyes": {"brown", "green", "blue", "hazel"},
}
TABLE_1_HAIR = {"curly", "straight", "short", "wavy", "long", "blonde", "brown", "black", "red"}


# Another anomaly, as a user would write it.
FACIAL_PALSY = """
schema = 1
name = "facial_palsy"
title = "Facial palsy"
closing = "Only one face, no text."
healthy_face = "{a} {age} {person} looking at the camera"
appearance = ["{skin} skin"]

[attributes.person]
title = "person"
values = ["man", "woman"]
absent = "person"

[attributes.age]
title = "age"
values = ["elderly", "young"]

[attributes.skin]
title = "skin tone"
values = ["light", "dark"]

[attributes.grade]
title = "House-Brackmann grade"
values = ["partial", "complete"]

[attributes.side]
title = "weak side"
values = ["left", "right"]

[attributes.eyelid]
title = "eyelid of a complete palsy"
values = ["none", "open eye"]
phrases = { none = "", "open eye" = "an eye that does not close" }
requires = { grade = ["complete"] }

[columns.file]
title = "file"
required = true

[columns.sex]
title = "sex"
values = ["f", "m"]
phrases = { f = "woman", m = "man" }

[columns.grade]
title = "grade"
values = ["partial", "complete"]
required = true

[conditions.acute]
title = "Acute facial palsy"
trigger = "FPAL"
status = "facial palsy"
attributes = ["person", "age", "grade", "side", "eyelid", "skin"]
descriptors = ["grade", "side", "eyelid"]
face = "{a} [{age}] {person} with {findings}"
caption = ["{a} {sex} with {a} {grade} facial palsy"]

[conditions.acute.phrases]
findings = ["{a} [{grade}] facial palsy [of the {side} side]", "{eyelid}"]

[conditions.acute.modes.elderly]
title = "elderly people mostly"
weights = { age = { elderly = 3, young = 1 } }
"""


@pytest.fixture
def palsy_file(tmp_path):
    path = tmp_path / "facial palsy.toml"
    path.write_text(FACIAL_PALSY, encoding="utf-8")
    return path


def clinical_words(name):
    condition = load_vocabulary().condition(name)
    values = [value for detail in condition.details.values() for value in detail.values if value != "none"]
    return set(words_of(" ".join([condition.trigger, condition.status, *values]))) - {
        "and",
        "after",
        "left",
    }  # "left out"


@pytest.mark.parametrize(
    ("name", "trigger", "subjects"),
    [
        ("pre_op", "CLP", {"girl", "boy", "baby", "kid"}),
        ("post_op", "CLPrep", {"girl", "boy", "baby", "kid", "man", "woman"}),
    ],
)
def test_the_embedded_vocabulary_holds_table_1(name, trigger, subjects):
    condition = load_vocabulary().condition(name)
    assert condition.trigger == trigger
    assert set(condition.attributes["subject"]) == subjects
    for attribute, values in TABLE_1.items():
        assert set(condition.attributes[attribute]) == values
    hair = [set(condition.attributes[key]) for key in ("hair_texture", "hair_length", "hair_color")]
    assert set.union(*hair) == TABLE_1_HAIR
    assert sum(map(len, hair)) == len(TABLE_1_HAIR)


def test_the_hash_is_that_of_the_file():
    assert load_vocabulary().sha256 == hashlib.sha256(conditions.loader.EMBEDDED.read_bytes()).hexdigest()


def test_the_python_of_conditions_and_prompts_knows_no_word_of_the_anomaly():
    clinical = {word for name in ("pre_op", "post_op") for word in clinical_words(name)}
    assert {"bilateral", "scars", "ptosis", "clp", "baby", "olive"} <= clinical
    package = Path(conditions.__file__).parent
    for path in package.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        constants = [
            node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose
        ]
        said = [
            node.value
            for node in constants
            if isinstance(node.value, str) and node.value not in ("cleft_lip.toml", *LANDMARKS)
        ]
        assert not {word for text in said for word in words_of(text)} & clinical, path.name


def test_metadata_is_read_in_the_files_spelling_and_unknown_columns_are_ignored():
    row = {
        "file": "a.png",
        "age_group": " Baby",
        "gender": "FEMALE",
        "cleft_type": "unilateral",
        "side": "",
        "asymmetry": "none",
        "scarring": "none",
        "repair_status": "unrepaired",
        "consent": "yes",
        "camera": "x",
    }
    checked = load_vocabulary().check_metadata(row)
    assert checked["age_group"] == "baby"
    assert checked["gender"] == "female"
    assert "side" not in checked
    assert "camera" not in checked


def test_a_blank_required_column_and_a_wrong_value_are_named_with_the_allowed_ones():
    vocabulary = load_vocabulary()
    with pytest.raises(UserError, match=r"row 3: age_group is blank; fill in baby, child, adult"):
        vocabulary.check_metadata({"file": "a.png"}, "row 3")
    with pytest.raises(UserError, match=r"row 3 has no age_group 'teen'; allowed: baby, child, adult"):
        vocabulary.check_metadata({"file": "a.png", "age_group": "teen"}, "row 3")


def test_an_unknown_condition_is_answered_with_the_known_ones():
    with pytest.raises(
        UserError, match=r"no condition 'preop'; did you mean 'pre_op'\? Allowed: pre_op, post_op"
    ):
        load_vocabulary().condition("preop")


def test_another_anomaly_is_another_file_for_builder_captions_and_plan(palsy_file):
    vocabulary = load_vocabulary(palsy_file)
    acute = vocabulary.condition("acute")
    said = {"person": "woman", "age": "elderly", "grade": "complete", "side": "left", "eyelid": "open eye"}
    assert build_prompt(acute, said) == (
        "[FPAL] An elderly woman with a complete facial palsy of the left side and "
        "an eye that does not close. Only one face, no text."
    )
    assert build_prompt(acute, {"skin": "dark"}, bracketed=False) == (
        "FPAL A person with a facial palsy. Dark skin. Only one face, no text."
    )
    assert build_prompt(acute, said, cleft=False, trigger="") == (
        "An elderly woman looking at the camera. Only one face, no text."
    )
    assert (
        build_caption(acute, {"sex": "f", "grade": "partial"})
        == "[FPAL] A woman with a partial facial palsy. Only one face, no text."
    )
    rows = sampling_plan(acute, 40, 1, AttributeChoices("elderly"))
    assert sum(row.attributes["age"] == "elderly" for row in rows) == 30
    assert all(("eyelid" in row.attributes) == (row.attributes["grade"] == "complete") for row in rows)
    assert {word for row in rows for word in words_of(row.prompt)} <= set(vocabulary.words())


def test_another_anomaly_works_on_the_command_line(palsy_file, command, tmp_path):
    options = ("--vocabulary", palsy_file, "--condition", "acute")
    done = command("prompt", *options, "--set", "age=elderly", "--set", "grade=partial")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[FPAL] An elderly person with a partial facial palsy. Only one face, no text.\n"
    assert command("plan", *options, "--n", 6, "--mode", "elderly", "--out", "p.jsonl").returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["condition"] for row in rows] == ["acute"] * 6
    assert all(row["prompt"].startswith("[FPAL] ") for row in rows)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "schema must be 1"),
        ('trigger = "FPAL"', 'trigger = "two words"', "must be one word of letters and digits"),
        ('trigger = "FPAL"', 'trigger = "COM1"', "trigger 'COM1' names the LoRA's file, and Windows keeps"),
        ('trigger = "FPAL"', "", "[conditions.acute]: trigger must be a text"),
        ('"{skin} skin"', '"{skinn} skin"', "a template mentions {skinn}"),
        ('"{skin} skin"', '"{skin} (skin)"', "parentheses"),
        ('"{skin} skin"', '"[{skin} skin"', "brackets that do not match"),
        ('closing = "Only one face, no text."', 'closing = "No text (none)."', "closing has parentheses"),
        ('grade = ["complete"] }', 'grade = ["total"] }', "grade has no 'total'; it has: partial, complete"),
        (
            '"grade", "side", "eyelid", "skin"]',
            '"side", "eyelid", "grade", "skin"]',
            "names 'grade'; known before",
        ),
        ('descriptors = ["grade", ', 'descriptors = ["degree", ', "descriptors names 'degree'"),
        ("elderly = 3", "elderly = -3", "a weight must be a number of 0 or more"),
        ("elderly = 3, young = 1", "elderly = 0, young = 0", "at least one weight must be above 0"),
        ("elderly = 3", "old = 3", "age has no 'old'; it has: elderly, young"),
        ('title = "person"', 'titel = "person"', "[attributes.person]: unknown key 'titel'"),
        ('values = ["man", "woman"]', 'values = ["man", "man"]', "values names something twice"),
        (
            "[conditions.acute.phrases]",
            "[conditions.acute.phrases]\nloop = '{loop}'\nx = '{loop}'",
            "the phrase loop mentions itself",
        ),
        ('"{eyelid}"]', '"{findings}"]', "the phrase findings mentions itself"),
        ("schema = 1", "schema = 1 =", "not valid TOML"),
        (
            'trigger = "FPAL"',
            'trigger = "FPAL"\ncontrast = "old"',
            "[conditions.acute]: contrast names 'old'; there are: none",
        ),
        ('trigger = "FPAL"', 'trigger = "FPAL"\ncontrast = "acute"', "contrast names 'acute'"),
        ('trigger = "FPAL"', 'trigger = "FPAL"\noption = "a b"', "option 'a b' must be letters and digits"),
        ('trigger = "FPAL"', 'trigger = "FPAL"\nphantom = { photographs = 3 }', "finding must be a text"),
        (
            'trigger = "FPAL"',
            'trigger = "FPAL"\nphantom = { finding = "x", photographs = 0 }',
            "[conditions.acute.phantom]: photographs must be a whole number from 1",
        ),
        (
            'trigger = "FPAL"',
            'trigger = "FPAL"\nphantom = { finding = "x", strength = "much" }',
            "[conditions.acute.phantom]: strength must be a number from -4 to 4",
        ),
        (
            'trigger = "FPAL"',
            'trigger = "FPAL"\nphantom = { finding = "x", max_timestep = 200 }',
            "[conditions.acute.phantom]: max_timestep must be a whole number from 201 to 1000",
        ),
        ("schema = 1", 'schema = 1\nzero_shot = ["a face"]', "zero_shot must be a table"),
        ("schema = 1", 'schema = 1\nreported = ["a figure"]', "reported must be written as [[...reported]]"),
        (
            "[attributes.person]",
            '[[reported]]\nmethod = "M"\ncondition = "acute"\nmetric = "kid"\nvalue = 1\n[attributes.person]',
            "[reported, number 1]: metric names 'kid'",
        ),
        (
            "[attributes.person]",
            '[[reported]]\nmethod = "M"\ncondition = "old"\nmetric = "fid"\nvalue = 1\n[attributes.person]',
            "condition names 'old'; there are: acute, all",
        ),
        (
            "[attributes.person]",
            '[[reported]]\nmethod = "M"\ncondition = "all"\nmetric = "fid"\nvalue = nan\n[attributes.person]',
            "value must be a number",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(palsy_file, old, new, message):
    assert old in FACIAL_PALSY
    palsy_file.write_text(FACIAL_PALSY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_vocabulary(palsy_file)
    assert "facial palsy.toml" in str(caught.value)


def called(name):
    """The file with its condition under another name."""
    return FACIAL_PALSY.replace("conditions.acute", f"conditions.{json.dumps(name)}")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *(
            (name, "letters, digits, _ and -")
            for name in ("../outside", "pre/infant", "a\\b", "C:x", "..", ".a")
        ),
        *((name, "letters, digits, _ and -") for name in ("", "a b", "a.b", "-a", "_a", "a\n", "a" * 41)),
        *((name, "Windows keeps this name for a device") for name in ("con", "NUL", "lpt1")),
        *(
            (name, "a run calls something of its own so")
            for name in (*RunOwn, CONTROL, HEALTHY, "all", "Faces")
        ),
    ],
)
def test_a_condition_whose_name_is_no_folder_of_its_own_in_every_run_is_refused(palsy_file, name, why):
    palsy_file.write_text(called(name), encoding="utf-8")
    with pytest.raises(UserError, match=f"a condition can't be called .*: .*{re.escape(why)}"):
        load_vocabulary(palsy_file)


@pytest.mark.parametrize("name", ["a", "2nd-visit_b", "gelähmt", "a" * 40, "console"])
def test_a_condition_can_have_any_plain_name(palsy_file, name):
    palsy_file.write_text(called(name), encoding="utf-8")
    assert list(load_vocabulary(palsy_file).conditions) == [name]


def test_two_conditions_that_differ_in_capitals_alone_are_refused(palsy_file):
    start = FACIAL_PALSY.index("[conditions.acute]")
    second = FACIAL_PALSY[start:].replace("acute", "Acute").replace("FPAL", "FPALB")
    palsy_file.write_text(f"{FACIAL_PALSY}\n{second}", encoding="utf-8")
    with pytest.raises(UserError, match="two conditions' names differ in capitals alone"):
        load_vocabulary(palsy_file)


def test_the_documentation_names_what_a_run_calls_its_own(repository):
    told = (repository / "docs" / "conditions.md").read_text(encoding="utf-8")
    assert [name for name in (*RunOwn, CONTROL, HEALTHY, "all") if f"`{name}`" not in told] == []


def test_a_missing_file_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_vocabulary(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("word", "article"),
    [
        ("unrepaired", "an"), ("unilateral", "a"), ("incomplete", "an"), ("uniform", "a"), ("adult", "an"),
        ("unimportant", "an"), ("European", "a"), ("baby", "a"), ("one-eyed", "a"), ("usual", "a"),
        ("ugly", "an"), ("heirloom", "an"),
    ],
)  # fmt: skip
def test_articles_follow_the_sound_of_the_next_word(word, article):
    grammar = Grammar({}, {}, {}, articles={"heirloom": "an"})
    assert grammar.sentence("with {a} " + word) == f"With {article} {word}."


def test_lists_are_joined_as_in_english():
    texts = {"x": "one", "y": "two", "z": "three"}
    phrases = {
        "all": ["{x}", "{y}", "{z}"],
        "some": ["{x}", "{nothing}", "{z}"],
        "last": ["{nothing}", "{y}"],
    }
    grammar = Grammar({}, texts, phrases)
    assert grammar.sentence("{all}; {some}; {last}") == "One, two and three; one and three; two."
    assert grammar.sentence("this needs {nothing}") == ""


def string_constants(path: Path) -> list[str]:
    """The strings of a module but its docstrings and a command's HELP and EXAMPLES."""
    tree = ast.parse(path.read_text("utf-8"))
    prose = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in tree.body:
        names = [getattr(target, "id", "") for target in getattr(node, "targets", [])]
        if isinstance(node, ast.Assign) and any(name.endswith(("HELP", "EXAMPLES")) for name in names):
            prose |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("help", "tooltip", "metavar"):
            prose |= {id(part) for part in ast.walk(node.value)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]


def test_no_code_outside_the_vocabulary_names_a_condition():
    root = Path(__file__).resolve().parents[2]
    names = {*load_vocabulary().conditions, *(item.trigger for item in load_vocabulary().conditions.values())}
    pattern = re.compile(rf"\b(?:{'|'.join(names)})\b")
    files = [
        path
        for room in ("diffusioncleft_core", "cli", "nodes", "trainer")
        for path in (root / room).rglob("*.py")
    ]
    assert len(files) > 100
    found = {
        f"{path.relative_to(root)}: {text}"
        for path in files
        for text in string_constants(path)
        if pattern.search(text)
    }
    assert found == set()


def test_a_condition_without_a_contrast_has_no_cell_and_no_regularisation_with_another_trigger(palsy_file):
    acute = load_vocabulary(palsy_file).condition("acute")
    assert (acute.contrast, acute.contrast_trigger, acute.phantom) == (None, None, None)
    assert acute.appearance_attributes == {"skin"}
    assert OTHER_TRIGGER not in trigger_cells(acute, 2, 0)
    plan = regularization_plan(acute, 8, 0)
    assert not any("FPAL" in row.prompt for row in plan)
    pre, post = load_vocabulary().conditions.values()
    assert (pre.contrast, post.contrast) == (post.name, pre.name)
    assert trigger_cells(pre, 2, 0)[OTHER_TRIGGER].rows[0].prompt.startswith("[CLPrep] ")
    assert [row.prompt.startswith("[CLPrep] ") for row in regularization_plan(pre, 10, 0)] == [
        *[False] * 4,
        True,
    ] * 2
