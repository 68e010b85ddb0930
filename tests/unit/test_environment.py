"""What a process is told about the machine, and what it does with its memory."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from diffusioncleft.diffusioncleft_core.environment import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(20):
    bytearray(b'1') * 2**24
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of Linux")
def test_memory_that_was_freed_is_used_again_unless_the_environment_says_otherwise(offline_env):
    plain = {key: value for key, value in offline_env.items() if not key.startswith(("MALLOC_", "GLIBC_"))}

    def faults(how: str, environment: dict[str, str]) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], env=environment, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    pages = 20 * 2**24 // 4096
    own = plain | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    assert faults("plain", own) > 0.8 * pages
    assert faults("kept", plain) < 0.5 * pages
    assert faults("kept", own) > 0.8 * pages
