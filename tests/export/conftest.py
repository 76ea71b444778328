from pathlib import Path

import pytest
from streams import checkpoint, clam, frames


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small CLAM in float32 and in 8 bits; no test changes the folders."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} of the extra `export` is not installed")
    from actioncast.export.exporting import export_checkpoint

    home = tmp_path_factory.mktemp("exported")
    one = checkpoint(clam())
    export_checkpoint(one, home / "fp32")
    export_checkpoint(one, home / "int8", "int8", frames(64, seed=9), "frames")
    return {name: home / name for name in ("fp32", "int8")}
