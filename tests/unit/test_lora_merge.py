"""LoRAs out of LoRAs and models: weighted sums, lower ranks, differences, each against the dense matrices."""

import json

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file
from tiny_flux import build_tiny_flux

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.dataset import withdrawn
from diffusioncleft.diffusioncleft_core.dataset.consent import NOT_RECORDED, RECORDED
from diffusioncleft.diffusioncleft_core.dataset.drawn import lora_names
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import sha256_file
from diffusioncleft.diffusioncleft_core.flux import lora
from diffusioncleft.diffusioncleft_core.flux.lora_file import read_lora, save_tensors
from diffusioncleft.diffusioncleft_core.flux.lora_keys import LoraModule, from_state, write
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer
from diffusioncleft.diffusioncleft_core.flux.transformer_keys import (
    diffusers_to_bfl,
    double_block,
    single_block,
)
from diffusioncleft.diffusioncleft_core.loras import extract
from diffusioncleft.diffusioncleft_core.loras.extract import decomposed, extract_lora
from diffusioncleft.diffusioncleft_core.loras.merge import merge_loras, resize_lora

CPU = torch.device("cpu")
HIDDEN, DOUBLE, SINGLE = 64, 2, 2


def layers() -> list[tuple[str, ...]]:
    return [
        pair.parts
        for build, count in ((double_block, DOUBLE), (single_block, SINGLE))
        for index in range(count)
        for pair in build(index)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_flux(tmp_path_factory.mktemp("merge") / "flux")


@pytest.fixture(scope="module")
def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def random_lora(weights, rank, alpha, seed, joint=False) -> dict[str, LoraModule]:
    """A LoRA of the tiny model; joint: the parts of a BFL layer share one down matrix."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for parts in layers():
        down = None
        for part in parts:
            out, inside = weights[f"{part}.weight"].shape
            if down is None or not joint:
                down = torch.randn(rank, inside, generator=generator)
            modules[part] = LoraModule(down, torch.randn(out, rank, generator=generator), alpha)
    return modules


def save(path, modules, metadata=None, form="kohya"):
    save_tensors(path, write(modules, form), metadata or {})
    return path


def deltas(path) -> dict[str, torch.Tensor]:
    read = read_lora(path)
    return {name: module.delta() for name, module in from_state(read.state, read.alphas).items()}


def assert_near(found, expected, tolerance=1e-6):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert (found[name] - value).norm() <= tolerance * value.norm(), name


@pytest.mark.parametrize("form", ["kohya", "diffusers", "comfyui"])
def test_a_merge_is_the_weighted_sum_of_the_dense_changes(weights, tmp_path, form):
    first = save(tmp_path / "a.safetensors", random_lora(weights, 4, 8.0, 1, joint=True))
    second = save(tmp_path / "b.safetensors", random_lora(weights, 3, 1.0, 2), form="diffusers")
    written = merge_loras([(first, 0.7), (second, -0.3)], tmp_path / "c.safetensors", format=form)
    one, other = deltas(first), deltas(second)
    assert_near(
        deltas(tmp_path / "c.safetensors"), {name: 0.7 * one[name] - 0.3 * other[name] for name in one}
    )
    assert written.ranks == (7,)
    assert written.errors.total < 1e-7


def test_a_merge_of_joint_loras_stays_joint(weights, tmp_path):
    paths = [save(tmp_path / f"{n}.safetensors", random_lora(weights, n, 2.0, n, joint=True)) for n in (3, 4)]
    merge_loras([(path, 1.0) for path in paths], tmp_path / "c.safetensors")
    assert (
        load_file(tmp_path / "c.safetensors")[
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"
        ].shape[0]
        == 7
    )


def test_a_layer_that_one_lora_alone_has_is_merged_too(weights, tmp_path):
    modules = random_lora(weights, 4, 8.0, 1)
    name, rest = "transformer_blocks.0.attn.to_q", dict(modules)
    del rest[name]
    paths = [save(tmp_path / "a.safetensors", modules), save(tmp_path / "b.safetensors", rest)]
    merge_loras([(path, 0.5) for path in paths], tmp_path / "c.safetensors")
    dense = {key: module.delta() for key, module in modules.items()}
    assert_near(deltas(tmp_path / "c.safetensors"), dense | {name: 0.5 * dense[name]})


def best(dense: torch.Tensor, rank: int) -> torch.Tensor:
    left, values, right = torch.linalg.svd(dense, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


@pytest.mark.parametrize("joint", [True, False])
def test_a_lower_rank_is_the_best_there_is_of_the_dense_change(weights, tmp_path, joint):
    modules = random_lora(weights, 8, 4.0, 1, joint=joint)
    path = save(tmp_path / "a.safetensors", modules)
    written = resize_lora(path, tmp_path / "b.safetensors", rank=3)
    dense, found = deltas(path), deltas(tmp_path / "b.safetensors")
    lost = kept = 0.0
    for parts in layers():
        for group in [parts] if joint else [(part,) for part in parts]:
            whole = torch.cat([dense[part] for part in group])
            expected = best(whole, 3)
            assert (torch.cat([found[part] for part in group]) - expected).norm() < 1e-6 * whole.norm()
            lost += float((whole - expected).square().sum())
            kept += float(whole.square().sum())
    assert written.errors.total == pytest.approx((lost / kept) ** 0.5, rel=1e-5)
    assert 0 < written.errors.total < written.errors.worst < 1
    assert written.ranks == (3,)


def test_at_full_rank_nothing_is_lost(weights, tmp_path):
    path = save(tmp_path / "a.safetensors", random_lora(weights, 4, 8.0, 1))
    written = resize_lora(path, tmp_path / "b.safetensors", rank=4)
    assert written.errors.total == 0
    assert any("higher rank" in said for said in written.warnings)
    assert_near(deltas(tmp_path / "b.safetensors"), deltas(path), tolerance=0)
    # A sum of a LoRA with itself has twice the rank that it needs: cut to that, it is exact.
    merge_loras([(path, 0.5), (path, 0.5)], tmp_path / "twice.safetensors")
    resize_lora(tmp_path / "twice.safetensors", tmp_path / "c.safetensors", rank=4)
    assert_near(deltas(tmp_path / "c.safetensors"), deltas(path))


def test_energy_keeps_the_lowest_rank_that_holds_its_share(weights, tmp_path):
    path = save(tmp_path / "a.safetensors", random_lora(weights, 8, 8.0, 1))
    resize_lora(path, tmp_path / "b.safetensors", energy=0.9)
    read = read_lora(tmp_path / "b.safetensors")
    for name, dense in deltas(path).items():
        squares = torch.linalg.svdvals(dense).square()
        rank = read.state[f"{name}.lora_A.weight"].shape[0]
        assert squares[:rank].sum() >= 0.9 * squares.sum() > squares[: rank - 1].sum()


def test_the_error_of_rounding_is_told(weights, tmp_path):
    path = save(tmp_path / "a.safetensors", random_lora(weights, 4, 8.0, 1))
    written = resize_lora(path, tmp_path / "b.safetensors", rank=4, precision="bf16")
    dense, found = deltas(path), deltas(tmp_path / "b.safetensors")
    lost = sum(float((dense[name] - found[name]).square().sum()) for name in dense)
    whole = sum(float(value.square().sum()) for value in dense.values())
    assert written.errors.total == pytest.approx((lost / whole) ** 0.5, rel=1e-6)
    assert 1e-4 < written.errors.total < 1e-2


def test_metadata_say_where_a_merged_lora_came_from_and_whether_people_were_asked(weights, tmp_path):
    common = {"base_model_sha256": "ab" * 32, "consent": RECORDED, "trigger": "CLP"}
    first = save(
        tmp_path / "a.safetensors", random_lora(weights, 4, 8.0, 1), common | {withdrawn.RUN_KEY: "run-a"}
    )
    second = save(
        tmp_path / "b.safetensors", random_lora(weights, 4, 8.0, 2), common | {withdrawn.RUN_KEY: "run-b"}
    )
    merge_loras([(first, 1.0), (second, 1.0)], tmp_path / "c.safetensors")
    told = read_lora(tmp_path / "c.safetensors").metadata
    assert told["consent"] == RECORDED
    assert told["trigger"] == "CLP"
    assert (told["ss_network_dim"], told["effective_scale"]) == ("8", "2")
    assert json.loads(told["merge_weights"]) == [1.0, 1.0]
    assert withdrawn.RUN_KEY not in told
    assert {"run-a", "run-b", sha256_file(first)} < lora_names([tmp_path / "c.safetensors"])
    unasked = save(
        tmp_path / "d.safetensors",
        random_lora(weights, 4, 8.0, 2),
        common | {"consent": NOT_RECORDED, "trigger": "X"},
    )
    written = merge_loras([(first, 1.0), (unasked, 1.0)], tmp_path / "e.safetensors")
    told = read_lora(tmp_path / "e.safetensors").metadata
    assert told["consent"] == NOT_RECORDED
    assert "trigger" not in told
    assert any("trigger" in said for said in written.warnings)


def test_a_withdrawn_source_reaches_what_was_merged_converted_or_resized_from_it(weights, tmp_path):
    first = save(tmp_path / "a.safetensors", random_lora(weights, 4, 8.0, 1), {withdrawn.RUN_KEY: "run-a"})
    second = save(tmp_path / "b.safetensors", random_lora(weights, 4, 8.0, 2))
    merge_loras([(first, 1.0), (second, 1.0)], tmp_path / "c.safetensors")
    merge_loras([(tmp_path / "c.safetensors", 1.0), (second, 1.0)], tmp_path / "d.safetensors")
    lora.convert_lora(tmp_path / "d.safetensors", tmp_path / "e.safetensors", "diffusers")
    resize_lora(tmp_path / "e.safetensors", tmp_path / "f.safetensors", rank=2)
    for known in (
        withdrawn.Withdrawal("run-a", (), "2026-01-01", "x"),
        withdrawn.Withdrawal("", (sha256_file(second),), "2026-01-01", "x"),
    ):
        for name in "cdef":
            assert withdrawn.lora_withdrawal(tmp_path / f"{name}.safetensors", [known]) == known, name
    other = withdrawn.Withdrawal("run-z", (), "2026-01-01", "x")
    assert withdrawn.lora_withdrawal(tmp_path / "f.safetensors", [other]) is None


@pytest.fixture
def marked(weights, tmp_path, monkeypatch):
    """Two LoRAs of a training, `chosen` and `other`, in a folder with marks that others' machines wrote."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "400")
    folder = tmp_path / "marked"
    folder.mkdir()
    chosen, other = (
        save(folder / f"{name}.safetensors", random_lora(weights, 4, 8.0, seed), {withdrawn.RUN_KEY: "run-a"})
        for seed, name in enumerate(("chosen", "other"))
    )

    def mark(part):
        (folder / withdrawn.MARK).unlink(missing_ok=True)
        item = withdrawn.Withdrawal("run-a", (sha256_file(chosen),), "2026-01-01", "x", part)
        withdrawn.add_marks(folder, [item])
        return chosen, other

    return mark


@pytest.mark.parametrize("part", [withdrawn.TRAINED_ON, withdrawn.CHOSEN_BY])
@pytest.mark.parametrize("command", ["merge", "resize", "convert"])
def test_what_is_made_of_a_marked_lora_says_so_and_is_marked_at_once(marked, command, part, tmp_path, capsys):
    learned = part == withdrawn.TRAINED_ON
    for source, reached in zip(marked(part), (True, learned), strict=True):
        out = tmp_path / f"of-{source.stem}" / "out.safetensors"
        out.parent.mkdir()
        words = ["--out", out] if command == "merge" else [out]
        words += ["--rank", 2] if command == "resize" else []
        assert main(["lora", command, str(source), *map(str, words)]) == 0
        said = capsys.readouterr().err
        assert ("is marked so too" in said) == reached
        assert ("learned nothing from it" in said) == (reached and not learned)
        assert bool(withdrawn.read_mark(out.parent, part)) == reached
        copy = tmp_path / f"copy-of-{source.stem}" / "out.safetensors"
        copy.parent.mkdir()
        copy.write_bytes(out.read_bytes())  # without the mark: this machine's list knows it
        assert bool(withdrawn.lora_withdrawals(copy, part=part)) == reached
        assert (withdrawn.lora_withdrawal(copy) is not None) == learned


def test_what_is_extracted_from_a_marked_model_says_so_and_is_marked(
    folder, tuned, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path, _ = tuned
    model = tmp_path / "model" / "tuned.safetensors"
    model.parent.mkdir()
    model.write_bytes(path.read_bytes())
    withdrawn.add_marks(model.parent, [withdrawn.Withdrawal("", (sha256_file(model),), "2026-01-01", "x")])
    out = tmp_path / "out.safetensors"
    assert main(["lora", "extract", str(folder), str(model), str(out), "--rank", "2"]) == 0
    assert "is marked so too" in capsys.readouterr().err
    assert withdrawn.lora_withdrawal(out, []) is not None


def test_loras_that_do_not_go_together_are_refused_in_a_sentence(weights, tmp_path):
    modules = random_lora(weights, 4, 8.0, 1)
    first = save(tmp_path / "a.safetensors", modules, {"base_model_sha256": "a" * 64})
    second = save(tmp_path / "b.safetensors", modules, {"base_model_sha256": "b" * 64})
    with pytest.raises(UserError, match=r"different base models; .*--other-bases"):
        merge_loras([(first, 1.0), (second, 1.0)], tmp_path / "c.safetensors")
    merge_loras([(first, 1.0), (second, 1.0)], tmp_path / "c.safetensors", other_bases=True)
    wide = {
        n: LoraModule(torch.randn(4, 96), torch.randn(96, 4), 8.0) for n in ["transformer_blocks.0.attn.to_q"]
    }
    third = save(tmp_path / "w.safetensors", wide, form="diffusers")
    with pytest.raises(UserError, match="different widths"):
        merge_loras([(first, 1.0), (third, 1.0)], tmp_path / "d.safetensors")
    with pytest.raises(UserError, match="change nothing"):
        merge_loras([(first, 0.0)], tmp_path / "d.safetensors")
    assert not (tmp_path / "d.safetensors").exists()


@pytest.fixture(scope="module")
def tuned(folder, weights, tmp_path_factory):
    """The tiny model with a planted change of rank 3 in every layer of the blocks, as one of BFL's files."""
    change = {name: module.delta() for name, module in random_lora(weights, 3, 0.3, 5, joint=True).items()}
    state = dict(weights)
    for name, delta in change.items():
        state[f"{name}.weight"] = (state[f"{name}.weight"].double() + delta).float()
    path = tmp_path_factory.mktemp("tuned") / "tuned.safetensors"
    bfl = diffusers_to_bfl(state)
    bfl = {f"model.diffusion_model.{name}": value.contiguous() for name, value in bfl.items()}
    save_file(bfl | {"vae.decoder.conv_in.weight": torch.ones(2, 2)}, path)
    return path, change


@pytest.mark.parametrize("qkv", ["joint", "separate"])
def test_a_planted_change_is_found_again_in_a_file_that_holds_more(folder, tuned, tmp_path, qkv):
    path, change = tuned
    written = extract_lora(folder, path, tmp_path / "x.safetensors", 3, qkv=qkv, precision="float")
    assert_near(deltas(tmp_path / "x.safetensors"), change, tolerance=1e-4)
    assert written.errors.worst < 1e-4
    assert written.warnings == ()
    assert not (tmp_path / "x.safetensors.partial").exists()
    expected = load_transformer(FluxSource(transformer=path), CPU, torch.float32)
    found = load_transformer(FluxSource(folder=folder), CPU, torch.float32)
    lora.load_lora(found, tmp_path / "x.safetensors")
    inputs = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    for name in change:
        one, other = (model.get_submodule(name) for model in (expected, found))
        probe = inputs.repeat(1, 5)[:, : one.in_features]
        assert torch.allclose(one(probe), other(probe), atol=1e-4), name


def test_the_error_of_an_extraction_is_that_of_the_best_rank(folder, tuned, tmp_path):
    path, change = tuned
    written = extract_lora(folder, path, tmp_path / "x.safetensors", 2, precision="float")
    lost = whole = 0.0
    for parts in layers():
        dense = torch.cat([change[part] for part in parts])
        lost += float((dense - best(dense, 2)).square().sum())
        whole += float(dense.square().sum())
    assert written.errors.total == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    # More than the change has is not kept: the rest is rounding.
    extract_lora(folder, path, tmp_path / "y.safetensors", 3)
    assert read_lora(tmp_path / "y.safetensors").metadata["ss_network_dim"] == "3"


def test_a_large_difference_is_decomposed_as_exactly_by_the_range_finder(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    planted = torch.randn(160, 5, generator=generator) @ torch.randn(5, 120, generator=generator)
    noisy = planted + 0.01 * torch.randn(160, 120, generator=generator)
    monkeypatch.setattr(extract, "_EXACT_SIDE", 0)
    up, down = decomposed(noisy, 5)
    exact = (noisy - best(noisy, 5)).norm()
    assert (noisy - up @ down).norm() <= 1.0001 * exact


def test_what_a_lora_can_not_hold_is_told(folder, weights, tmp_path):
    state = dict(weights)
    state["transformer_blocks.0.attn.to_q.weight"] = state["transformer_blocks.0.attn.to_q.weight"] + 0.1
    state["transformer_blocks.0.attn.to_q.bias"] = state["transformer_blocks.0.attn.to_q.bias"] + 1
    state["x_embedder.weight"] = state["x_embedder.weight"] + 1
    save_file(diffusers_to_bfl(state), tmp_path / "tuned.safetensors")
    written = extract_lora(folder, tmp_path / "tuned.safetensors", tmp_path / "x.safetensors", 1)
    assert any(said.startswith("2 tensors") for said in written.warnings)
    assert set(deltas(tmp_path / "x.safetensors")) == {"transformer_blocks.0.attn.to_q"}
    with pytest.raises(UserError, match="nothing to extract"):
        extract_lora(folder, folder, tmp_path / "y.safetensors", 1)


def test_a_stopped_extraction_goes_on_with_what_is_done(folder, tuned, tmp_path, monkeypatch):
    path, _ = tuned
    out = tmp_path / "x.safetensors"
    extract_lora(folder, path, tmp_path / "whole.safetensors", 3)
    done = []

    def stops(difference, rank):
        if len(done) == 7:
            raise KeyboardInterrupt
        done.append(1)
        return decomposed(difference, rank)

    monkeypatch.setattr(extract, "decomposed", stops)
    with pytest.raises(KeyboardInterrupt):
        extract_lora(folder, path, out, 3)
    assert not out.exists()
    again = []
    monkeypatch.setattr(extract, "decomposed", lambda *given: again.append(1) or decomposed(*given))
    extract_lora(folder, path, out, 3)
    assert len(again) == len(layers()) - 7
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not out.with_name("x.safetensors.partial").exists()


def test_models_that_are_no_pair_are_refused(folder, weights, tmp_path):
    small = {name: value for name, value in weights.items() if "transformer_blocks.1." not in name}
    save_file(
        diffusers_to_bfl({k: v for k, v in small.items() if "single" not in k or ".0." in k}),
        tmp_path / "small.safetensors",
    )
    with pytest.raises(UserError, match="different sizes"):
        extract_lora(folder, tmp_path / "small.safetensors", tmp_path / "x.safetensors", 2)
    with pytest.raises(UserError, match="there is no file"):
        extract_lora(folder, tmp_path / "none.safetensors", tmp_path / "x.safetensors", 2)


def test_diffusers_reads_what_was_merged_and_resized(folder, weights, tmp_path):
    path = save(tmp_path / "a.safetensors", random_lora(weights, 4, 0.1, 1, joint=True))
    merge_loras([(path, 0.5), (path, 0.25)], tmp_path / "b.safetensors", rank=2, format="diffusers")
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(str(tmp_path / "b.safetensors"))
    for name, delta in deltas(tmp_path / "b.safetensors").items():
        layer = pipeline.transformer.get_submodule(name)
        adapter = next(iter(layer.lora_A))
        found = layer.scaling[adapter] * layer.lora_B[adapter].weight @ layer.lora_A[adapter].weight
        assert torch.allclose(found.double(), delta, atol=1e-6), name


def test_the_commands_say_what_they_wrote_and_refuse_what_is_there(capsys, folder, weights, tmp_path):
    def command(*arguments: object) -> tuple[int, str]:
        status = main(["lora", *map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out if status == 0 else said.err

    path = save(tmp_path / "a b.safetensors", random_lora(weights, 4, 8.0, 1))
    status, said = command("merge", f"{path}:0.5", path, "--out", tmp_path / "c.safetensors", "--rank", "2")
    assert status == 0
    assert "rank 2" in said
    assert "in the worst layer" in said
    status, said = command("resize", path, tmp_path / "c.safetensors", "--rank", "2")
    assert status == 2
    assert "--overwrite" in said
    for source in (
        folder / "transformer" / "diffusion_pytorch_model.safetensors",
        tmp_path / "no.safetensors",
    ):
        status, said = command("merge", source, "--out", tmp_path / "e.safetensors")
        assert status == 2
        assert len(said.strip().splitlines()) == 1
    status, said = command("extract", folder, path, tmp_path / "e.safetensors", "--rank", "4")
    assert status == 2
    assert "it is a LoRA" in said
    assert not list(tmp_path.glob("e.*"))
    assert (
        command("extract", folder, tmp_path / "t.safetensors", tmp_path / "e.safetensors", "--rank", "4")[0]
        == 2
    )
    with pytest.raises(SystemExit):
        command("resize", path, tmp_path / "e.safetensors", "--energy", "1.5")
    with pytest.raises(SystemExit):
        command("resize", path, tmp_path / "e.safetensors")
