import os

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("actioncast", "typechecker.check")  # before the first import of the package

# Where everybody waits for the answer, a run must not depend on what is drawn.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI") == "true":
    settings.load_profile("ci")
