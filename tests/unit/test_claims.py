"""What is shipped says what was checked and found, not what nobody can know, as who is not in a picture."""

import re

import pytest

SHIPPED = {".md", ".py", ".json", ".html", ".css", ".js", ".toml", ".cff", ""}
PLACES = (
    "diffusioncleft_core",
    "nodes",
    "trainer",
    "docs",
    "web",
    "locales",
    "workflows",
    "scripts",
    "benchmarks",
)
CLAIMS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # who is in a picture, and whose it is
        r"\b(shows?|showing|depicts?|draws?|is|are|be|belongs?|belonging|remembers?|resembles?)( to)? "
        r"(nobody|no[ -]one|no (real |actual )?(person|people|patients?|humans?|individuals?))\b",
        r"\b(nobody|no[ -]one)['’]s (photograph|face|picture|likeness)",
        r"\bno (real |actual |living )?(person|people|patients?|humans?|individuals?) "
        r"(is|are|was|were|appears?|stands?) (in|on|behind|shown|depicted|harmed)\b",
        r"\bwithout (a |any )?(real |actual )?(person|people|patients?) (in|on|behind) (it|them)\b",
        r"\b(no|not|n['’]t|never) (an? |of |any )?real (persons?|people|patients?|individuals?|humans?)\b",
        r"\b(people|persons?|patients?|someone|faces?|children|individuals?)( who| that)? "
        r"(do|does|did)( not|n['’]t) exist\b",
        r"\b(non-?existent|fictitious|fictional|imaginary) (people|persons?|patients?|faces?|individuals?)\b",
        # what a method can't promise
        r"\banonym(ous|ou?sly|ity|i[sz]e[sd]?|i[sz]ing|i[sz]ation)\b",
        r"\bde-?identified\b",
        r"\bprivacy[- ](safe|preserving|friendly|proof|guaranteed)\b",
        r"\bguarantee",
        r"\b(completely|fully|entirely|perfectly|absolutely|100 ?%) (private|safe|secure|synthetic)\b",
        r"\b(can ?not|can['’]t|never) (be )?(identif|re-?identif|recogni[sz]ed|traced)",
        r"\b(risk[- ]free|leak[- ](free|proof)|leaks? nothing|tells? others nothing)\b",
        r"\bmemori[sz]es? (nobody|nothing|no[ -]one)\b",
        # the German texts of the nodes
        r"\b(niemand(en|em)?|anonym(?!eter\b)\w*|garantier\w*)\b",  # Anonymeter is a method's name
        r"\b(keine?n?|ohne) (einen |echten? |realen? )*(Mensch|Person|Patient)",
    )
]


def claims_in(text: str) -> list[str]:
    """The claims in a text, read as its reader sees it: lines and adjacent strings run on."""
    joined = re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)
    joined = re.sub(r"\s*\n[\s#>*]*", " ", joined)
    return [found.group() for claim in CLAIMS for found in claim.finditer(joined)]


def shipped(repository):
    """Every text of the repository that a user, or a reader of the code, may see."""
    for name in PLACES:
        yield from (repository / name).rglob("*")
    yield from repository.glob("*")


def test_no_shipped_text_claims_what_nobody_can_know(repository):
    read, claims = 0, []
    for path in shipped(repository):
        if not path.is_file() or path.suffix not in SHIPPED or path.name in ("LICENSE", ".gitignore"):
            continue
        text = path.read_text(encoding="utf-8")
        read += 1
        claims += [f"{path.relative_to(repository)}: {claim!r}" for claim in claims_in(text)]
    assert read > 250, "the texts were not found"
    assert not claims, "\n".join(claims)


@pytest.mark.parametrize(
    "claim",
    [
        "a model drew it, and it shows nobody.",
        "faces with cleft lip that belong to\nnobody, to train",
        "pictures without a patient in them",
        "photographs of people who do not exist",
        "a dataset of faces: no\n    person is in it",
        "It draws no people.",
        "On phantoms, who are nobody, comparing",
        "These are not real people.",
        '"The set is "\n    "anonymous"',
        "The filter guarantees it",
        "a privacy-safe set",
        "faces can't be re-identified",
        "Es zeichnet keine Menschen.",
        "ohne einen Menschen darin",
    ],
)
def test_such_claims_are_found_wherever_a_line_breaks(claim):
    assert claims_in(claim)


@pytest.mark.parametrize(
    "sentence",
    [
        "the dataset does not exist; check the path",
        "A run that nobody drives any more was interrupted",
        "No node shows a photograph.",
        "the folder holds no photograph of the run",
        "comfyanonymous/flux_text_encoders",
        "A face recogniser found no similarity that reaches the threshold.",
    ],
)
def test_what_can_be_checked_may_be_said(sentence):
    assert not claims_in(sentence)
