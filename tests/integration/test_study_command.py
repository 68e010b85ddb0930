"""A study's commands: links that are made, listed and revoked, and how a server is started."""

import http.client
import re
import shutil
import ssl
import subprocess

import pytest

from diffusioncleft.tools.study_server import make_study


def test_the_command_line_invites_lists_and_revokes(tmp_path, command):
    study = make_study(tmp_path / "study", n=2, practice=1, side=64)
    invited = command("study", "invite", study.root, "Anna Ärztin")
    assert invited.returncode == 0, invited.stderr
    assert re.search(r"^http://127\.0\.0\.1:8377/enter/[\w-]{43}$", invited.stdout, re.MULTILINE)
    again = command("study", "invite", study.root, "Anna Ärztin")
    assert again.returncode == 2
    assert "has a link already; --renew" in again.stderr
    renewed = command("study", "invite", study.root, "Anna Ärztin", "--renew", "--url", "https://a.example")
    assert "https://a.example/enter/" in renewed.stdout
    listed = command("study", "raters", study.root).stdout
    assert re.match(r"R1\s+0 of 2 rated, 0 corrected\s+invited \d{4}-\d\d-\d\d\s+Anna Ärztin", listed)
    assert command("study", "revoke", study.root, "Anna Ärztin").returncode == 0
    assert "revoked" in command("study", "raters", study.root).stdout


def test_serve_is_loud_without_tls_and_says_what_it_cannot(serving, command, tmp_path):
    server = serving("--host", "0.0.0.0")
    assert "NO TLS" in server.said()
    assert "nobody was invited yet" not in server.said()
    taken = command("study", "serve", server.study.root, "--port", server.port)
    assert taken.returncode == 2
    assert "is taken by another program" in taken.stderr
    assert server.stop() == 0
    (server.study.root / "closed.json").write_text("{}", "utf-8")
    closed = command("study", "serve", server.study.root)
    assert closed.returncode == 2
    assert "is closed and takes no answers" in closed.stderr


def test_with_a_certificate_all_of_it_is_tls(serving, tmp_path):
    openssl = shutil.which("openssl") or pytest.skip("NO OPENSSL: TLS was not tested")
    files = [str(tmp_path / name) for name in ("key.pem", "certificate.pem")]
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", files[0], "-out", files[1]]
    subprocess.run([openssl, *made], check=True, capture_output=True)
    server = serving("--tls-key", files[0], "--tls-certificate", files[1])
    assert server.base.startswith("https://127.0.0.1:")
    assert "NO TLS" not in server.said()
    trusting = ssl.create_default_context(cafile=files[1])
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=trusting, timeout=30)
    connection.request("GET", server.invite("Anna").removeprefix(server.base))
    answer = connection.getresponse()
    assert answer.status == 303
    assert answer.headers["set-cookie"].startswith("__Host-study_")
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"]
