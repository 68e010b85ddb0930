"""moto's S3 server as a process of its own: real HTTP, real signatures of the client, nothing patched."""

import contextlib
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

SERVE = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class Server:
    """A running server. `environment`: what a client finds it and its credentials by."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.secret = f"SECRET{secrets.token_hex(16)}"
        self.environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "AKIATESTS",
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def send(self, path: str, data: bytes = b"", method: str = "PUT") -> None:
        """A request of S3's own interface, or of the server's."""
        headers = {"Content-Type": "text/plain"}  # else the server takes the data for a form
        request = urllib.request.Request(f"{self.endpoint}/{path}", data, headers, method=method)
        urllib.request.urlopen(request).read()

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        self.send(name)

    def store(self):
        """s3fs, as a user has it."""
        import s3fs

        return s3fs.S3FileSystem(
            key="AKIATESTS",
            secret=self.secret,
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": "us-east-1"},
            skip_instance_cache=True,
            use_listings_cache=False,
        )


@contextlib.contextmanager
def s3_server() -> Iterator[Server]:
    """A server that is ready, ended with the block."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            server = Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
            for _ in range(100):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{server.endpoint}/moto-api/", timeout=5).read()
                    break
                time.sleep(0.1)
            yield server
        finally:
            process.kill()
