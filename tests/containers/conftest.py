"""The image, built without a container engine or an image registry: buildah's chroot isolation on a Debian base."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.missing import skip_or_fail

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ("buildah", "debootstrap")
BASE_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
BASE_RELEASE = "bookworm"
HOST_FILES = ("/etc/ssl/certs", "/etc/pip.conf")
"""What pip needs during the build where packages come through a mirror."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder; the first one builds the image, which takes minutes."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("containers")
            item.add_marker(pytest.mark.timeout(1200))


class Image:
    """The built image; `run` runs a program in a container of it, on the host's network."""

    def __init__(self, folder: Path) -> None:
        places = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self._buildah = ["buildah", *places, "--storage-driver", "vfs"]
        self._build(folder)
        self.container = self._call("from", "gateway")
        self.config = json.loads(self._call("inspect", "--type", "image", "gateway"))["OCIv1"]["config"]

    def _build(self, folder: Path) -> None:
        debootstrap = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", BASE_RELEASE]
        subprocess.run([*debootstrap, folder / "base"], check=True, stdout=subprocess.DEVNULL)
        base = self._call("from", "scratch")
        self._call("add", "--quiet", base, str(folder / "base"), "/")
        self._call("commit", "--quiet", "--rm", base, "localhost/base")
        shutil.rmtree(folder / "base")
        volumes = [f"--volume={path}:{path}:ro" for path in HOST_FILES if Path(path).exists()]
        options = ["--isolation=chroot", "--format=docker", "--build-arg=BASE=localhost/base", *volumes]
        self._call("bud", *options, "--tag=gateway", str(ROOT))

    def _call(self, *arguments: str) -> str:
        done = subprocess.run([*self._buildah, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
        return done.stdout.strip()

    def command(self, *program: str, **variables: str) -> list[str]:
        """Return the command that runs a program with environment variables, as the image's user."""
        options = [f"--env={name}={value}" for name, value in variables.items()]
        return [*self._buildah, "run", "--isolation=chroot", *options, self.container, "--", *program]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image of this checkout."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        skip_or_fail(f"needs root, and {' and '.join(PROGRAMS)}")
    folder = tmp_path_factory.mktemp("image")
    yield Image(folder)
    shutil.rmtree(folder, ignore_errors=True)
