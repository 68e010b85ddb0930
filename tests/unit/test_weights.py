"""External models: found where they lie, hashed, and fetched whole or not at all, from a real server."""

import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import pytest

from diffusioncleft.cli import main as cli
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import FETCHED, find_pack
from diffusioncleft.diffusioncleft_core.weights.fetch import download, fetch_model
from diffusioncleft.diffusioncleft_core.weights.registry import (
    Model,
    WeightFile,
    find_entry,
    find_model,
    read_registry,
    require_file,
    verify,
)

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        if self.path == "/away.pth":
            self.send_response(302)
            self.send_header("Location", "http://example.org/weights.pth")
            self.end_headers()
            return
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        sent = body[start:] if self.path != "/torn.pth" or start else body[: len(body) // 3]
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.requests = []
    made.files = {
        "/weights.pth": CONTENT,
        "/torn.pth": CONTENT,
        "/pack.zip": archive(
            **{"buffalo/det.onnx": b"detector", "buffalo/rec.onnx": b"recogniser", "../evil": b"x"}
        ),
    }
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home: nothing on this machine is found, and nothing of it is touched."""
    folder = tmp_path / "home of a user"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMFYUI_PATH", str(folder / "no ComfyUI"))
    monkeypatch.delenv("DIFFUSIONCLEFT_WEIGHTS", raising=False)
    monkeypatch.delenv("DIFFUSIONCLEFT_FACE_PACKS", raising=False)
    return folder


def file_at(server, path, **pins):
    return WeightFile(path.strip("/"), url=f"http://127.0.0.1:{server.server_port}{path}", **pins)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_table_says_purpose_and_licence_of_every_model():
    models = read_registry()
    assert {"flux1-schnell", "schnell-training-adapter", "buffalo_l", "auraface"} <= {m.name for m in models}
    assert all(model.purpose and model.licence for model in models)
    for file in (file for model in models for file in model.files):
        assert file.url is None or file.url.startswith("https://")
        assert file.sha256 is None or len(file.sha256) == 64


def test_the_pins_are_what_the_installed_packages_say():
    from pytorch_fid.inception import FID_WEIGHTS_URL
    from torchvision.models import AlexNet_Weights

    from diffusioncleft.diffusioncleft_core.metrics.extractors import lpips_heads

    fid, trunk = find_entry("inception-fid").files[0], find_entry("lpips-alexnet").files[0]
    assert fid.url == FID_WEIGHTS_URL
    assert trunk.url == AlexNet_Weights.IMAGENET1K_V1.url
    assert trunk.url.endswith(f"-{trunk.sha256_start}.pth")
    heads = find_entry("lpips-heads").files[0]
    assert heads.fits(hashlib.sha256(lpips_heads().read_bytes()).hexdigest())


def test_insightfaces_address_is_the_installed_packages_own():
    from insightface.utils.storage import model_zoo_download_url

    assert find_entry("buffalo_l").archive == model_zoo_download_url("buffalo_l.zip")


def test_a_download_arrives_whole_under_its_own_name(server, tmp_path):
    target = tmp_path / "checkpoints" / "weights.pth"
    assert download(file_at(server, "/weights.pth", sha256=SHA256), target) == target
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["weights.pth"]
    download(file_at(server, "/weights.pth", sha256=SHA256), target)
    assert len(server.requests) == 1


def test_a_wrong_hash_leaves_nothing_behind(server, tmp_path):
    with pytest.raises(UserError, match="has not the pinned sha256 and was deleted"):
        download(file_at(server, "/weights.pth", sha256="0" * 64), tmp_path / "weights.pth")
    assert names(tmp_path) == []


def test_a_wrong_hash_leaves_the_file_that_was_there(server, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"an earlier one")
    with pytest.raises(UserError, match="pinned"):
        download(file_at(server, "/weights.pth", sha256_start="00000000"), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == b"an earlier one"


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    target, file = tmp_path / "torn.pth", file_at(server, "/torn.pth", sha256=SHA256)
    with pytest.raises(UserError, match="the connection broke"):
        download(file, target)
    assert not target.exists()
    download(file, target)
    assert target.read_bytes() == CONTENT
    assert server.requests[1][1] == f"bytes={len(CONTENT) // 3}-"
    assert names(tmp_path) == ["torn.pth"]


def test_behind_a_firewall_the_message_says_what_to_copy_where(tmp_path):
    file = WeightFile("weights.pth", url="https://weights.example.org/weights.pth")
    with pytest.raises(UserError) as caught:
        download(file, tmp_path / "weights.pth")
    assert "weights.example.org can't be reached" in str(caught.value)
    assert f"copy it to {tmp_path / 'weights.pth'}" in str(caught.value)


def test_an_unencrypted_address_is_not_opened_and_not_followed(server, tmp_path):
    with pytest.raises(UserError, match="no https address"):
        download(WeightFile("a.pth", url="http://example.org/a.pth"), tmp_path / "a.pth")
    with pytest.raises(UserError, match="no https address"):
        download(file_at(server, "/away.pth"), tmp_path / "a.pth")
    assert names(tmp_path) == []


def test_a_missing_file_on_the_server_is_one_sentence(server, tmp_path):
    with pytest.raises(UserError, match="answers 404"):
        download(file_at(server, "/gone.pth", sha256=SHA256), tmp_path / "gone.pth")


def test_a_pack_is_taken_out_of_its_archive_and_nothing_else_is(server, home):
    model = Model(
        name="buffalo_test",
        kind="face_pack",
        purpose="p",
        licence="l",
        archive=f"http://127.0.0.1:{server.server_port}/pack.zip",
        files=(WeightFile("det.onnx"), WeightFile("rec.onnx")),
    )
    paths = fetch_model(model)
    assert paths == [home / ".insightface/models/buffalo_test" / name for name in ("det.onnx", "rec.onnx")]
    assert names(home) == ["det.onnx", "rec.onnx"]
    assert find_model(model).place == "insightface"


def test_a_fetched_folder_works_on_a_machine_without_internet(server, home, tmp_path, monkeypatch):
    model = Model("made", "torch_hub", "p", "l", files=(file_at(server, "/weights.pth", sha256=SHA256),))
    fetch_model(model, tmp_path / "usb")
    assert not find_model(model).files
    (tmp_path / "usb").rename(tmp_path / "copied")
    monkeypatch.setenv("DIFFUSIONCLEFT_WEIGHTS", str(tmp_path / "copied"))
    found = find_model(model)
    assert found.complete
    assert found.place == "own folder"


def test_without_a_folder_a_file_goes_where_torch_hub_keeps_it(server, home):
    model = Model("made", "torch_hub", "p", "l", files=(file_at(server, "/weights.pth", sha256=SHA256),))
    assert fetch_model(model) == [home / ".cache/torch/hub/checkpoints/weights.pth"]
    assert find_model(model).place == "torch hub"


def test_weights_that_are_missing_stop_with_one_sentence(home):
    with pytest.raises(UserError) as caught:
        require_file("inception-fid")
    assert "diffusioncleft weights fetch inception-fid" in str(caught.value)
    assert str(home / ".cache/torch/hub/checkpoints") in str(caught.value)


def test_weights_of_another_hash_are_not_used(home, tmp_path):
    name = find_entry("inception-fid").files[0].name
    for content, said in (
        (b"\0something else", "not the pinned one"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{said}.*weights fetch inception-fid"):
            require_file("inception-fid", tmp_path)


def snapshot(home, index=None):
    folder = home / ".cache/huggingface/hub/models--black-forest-labs--FLUX.1-schnell/snapshots/abc"
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").write_bytes(b"x")
    if index:
        (folder / "transformer/diffusion.safetensors.index.json").write_text(index)
    return folder


def test_a_hub_snapshot_counts_as_found_only_when_every_shard_is_there(home):
    folder = snapshot(home, '{"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}')
    (folder / "transformer/part-1.safetensors").write_bytes(b"x")
    found = find_model(find_entry("flux1-schnell"))
    assert found.place == "HF cache"
    assert found.missing == ("transformer/part-2.safetensors",)
    (folder / "transformer/part-2.safetensors").write_bytes(b"x")
    assert find_model(find_entry("flux1-schnell")).complete


def test_the_hubs_own_file_name_is_checked_against_the_content(home):
    folder = snapshot(home)
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for name, content in ((hashlib.sha256(b"right").hexdigest(), b"right"), ("0" * 64, b"wrong")):
        (blobs / name).write_bytes(content)
        link = folder / "vae" / f"{content.decode()}.safetensors"
        link.symlink_to(blobs / name)
    states = {verdict.name: verdict.state for verdict in verify(find_model(find_entry("flux1-schnell")))}
    assert states["vae/right.safetensors"] == "sound"
    assert states["vae/wrong.safetensors"] == "wrong"
    assert states["vae/model.safetensors"] == "not pinned"


def test_single_files_are_found_in_comfyuis_folders(home, monkeypatch):
    root = home / "ComfyUI"
    (root / "comfy/sd1_tokenizer").mkdir(parents=True)
    for folder, name in (("unet", "flux1-schnell.safetensors"), ("vae", "ae.safetensors")):
        (root / "models" / folder).mkdir(parents=True)
        (root / "models" / folder / name).write_bytes(b"x")
    monkeypatch.setenv("COMFYUI_PATH", str(root))
    found = find_model(find_entry("flux1-schnell-files"))
    assert set(found.files) == {"flux1-schnell.safetensors", "ae.safetensors"}
    assert found.missing == ("clip_l.safetensors", "t5xxl_fp16.safetensors")


def test_the_command_lists_verifies_and_says_what_is_wrong(home, tmp_path, capsys):
    assert cli.main(["weights", "list"]) == 0
    listed = capsys.readouterr().out
    assert "inception-fid  missing" in listed
    assert "lpips-heads  found in package" in listed
    assert "non-commercial research only" in listed
    (tmp_path / find_entry("inception-fid").files[0].name).write_bytes(b"damaged")
    assert cli.main(["weights", "verify", "inception-fid", "lpips-heads", "--dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "inception-fid  wrong" in out
    assert "lpips-heads  sound" in out


def test_unpinned_files_show_the_hash_that_is_there(home, tmp_path, capsys):
    for name in ("scrfd_10g_bnkps.onnx", "glintr100.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    assert cli.main(["weights", "verify", "auraface", "--dir", str(tmp_path)]) == 0
    assert f"not pinned  sha256 {hashlib.sha256(b'glintr100.onnx').hexdigest()}" in capsys.readouterr().out


def test_mistakes_of_the_command_are_one_line(home, capsys):
    assert cli.main(["weights", "fetch"]) == 2
    assert "say which model" in capsys.readouterr().err
    assert cli.main(["weights", "fetch", "inception"]) == 2
    assert "did you mean 'inception-fid'?" in capsys.readouterr().err


def test_a_hub_that_is_out_of_reach_is_one_sentence(home, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="copy the folder here"):
        fetch_model(find_entry("schnell-training-adapter"))


def test_a_face_pack_that_can_be_fetched_says_how(tmp_path):
    assert tuple(model.name for model in read_registry() if model.kind == "face_pack") == FETCHED
    with pytest.raises(UserError, match=r"run: diffusioncleft weights fetch auraface.*--phantom"):
        find_pack("auraface", [tmp_path])
    with pytest.raises(UserError, match=r"put its \.onnx files into <one of these>/another"):
        find_pack("another", [tmp_path])
