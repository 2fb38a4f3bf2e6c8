"""Check that the wheel installs `sessions_sticky` and nothing else, with all that it reads at run time."""

import sys
import zipfile

NEEDED = {
    "py.typed",
    "scripts/replace.lua",
    "migrations/0001_initial.py",
    "api/views.py",
    "admin/pages.py",
    "static/sessions_sticky/admin.css",
    "templates/admin/sessions_sticky/base.html",
    "locale/de/LC_MESSAGES/django.mo",
}

names = zipfile.ZipFile(sys.argv[1]).namelist()
foreign = [name for name in names if not name.startswith("sessions_sticky/") and ".dist-info/" not in name]
missing = NEEDED - {name.removeprefix("sessions_sticky/") for name in names}
if foreign or missing:
    sys.exit(f"{sys.argv[1]}: foreign files {foreign}, missing files {sorted(missing)}")
print(f"{len(names)} files")  # noqa: T201
