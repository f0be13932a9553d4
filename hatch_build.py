"""Builds the page into wheels and sdists, so that pip needs no node. An editable install and an sdist's own wheel do
not: the one builds it by `make front`, the other has it.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildPage(BuildHookInterface):
    """Runs npm where there is a source of the page, none built yet, and npm; says so where that is missing."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before anything is packed."""
        root = Path(self.root)
        built = (root / "back" / "static" / "index.html").is_file()
        if version == "editable" or built or not (root / "front" / "package.json").is_file():
            return
        npm = shutil.which("npm")
        if npm is None:
            self.app.display_warning("npm is not installed, so this build has no page; the service works without.")
            return
        for words in (["ci"], ["run", "build"]):
            subprocess.run([npm, *words], cwd=root / "front", check=True)
