"""Photographs of people are no phantoms, though the embedded detector finds faces in them."""


def test_a_dataset_of_phantoms_takes_none_and_keeps_nothing(command, one_person, tmp_path):
    out = tmp_path / "dataset"
    words = ["--metadata", one_person / "metadata.csv", "--condition", "pre_op", "--phantom", "--out", out]
    for _ in range(2):
        done = command("dataset", "build", one_person, *words)
        assert done.returncode == 2, done.stdout
        assert "seems to hold photographs of people" in done.stderr.strip().splitlines()[-1]
        assert not list(out.rglob("*.png")) and not list(out.rglob("*.safetensors"))
        assert not [path for path in out.rglob("*.jsonl") if path.stat().st_size]


def test_the_filters_judge_and_move_none_as_phantoms(command, one_person):
    (one_person / "metadata.csv").unlink()
    before = sorted(path.name for path in one_person.iterdir())
    done = command("filter", one_person, "--artifacts-only", "--phantom")
    assert done.returncode == 2 and "know phantoms alone" in done.stderr
    assert sorted(path.name for path in one_person.iterdir() if path.name[0] != ".") == before
