"""device.py: memory that is kept for the next step."""

import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FAULTS = """
import resource
import device
device.keep_freed_memory()
def faults():  # pages that the kernel hands out for three blocks, 2.4 GB in all, which are freed again
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"1" * 800_000_000 for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's allocator")
def test_freed_memory_is_kept_however_much_it_is():
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 1000
