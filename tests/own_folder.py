"""A pytest plugin: the data folder and the metrics of the tests are a folder of their own, not the developer's `var`.

It is loaded (`-p`) before pytest-django reads the settings: start pytest as `python -m pytest`. They stay where
`manage.py test` has read them before.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

if "sentinel_project.settings" not in sys.modules:
    folder = tempfile.mkdtemp(prefix="tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["SENTINEL_DATA_DIR"] = folder
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # of the process that started this one
