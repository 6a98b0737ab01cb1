"""Real input for the models: photographs and recordings that packages ship, and text drawn with a packaged font."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from repository_builder import packages
from repository_builder.packages import Wheels, write

# What is drawn; the tests read it back.
TEXT_LINE = "Trivet serves models"
TEXT_PAGE = ("A page of drawn text", "over KServe v2", "on 2 cores, with no GPU")

ALSA_SOUNDS = Path("usr/share/sounds/alsa")
RECORDINGS = {
    "Front_Center.wav": "0d61518bcd3f13b0c709a5298e939caf698b80d31d71d50475365ee0e5536cc9",
    "Rear_Left.wav": "1679e0557701864d55b742a0abd3fe5f50d95b1bfcb55ffad4b597dcc7e3c7b8",
    "Noise.wav": "0d897df3862192ea078efc1dd8fdc4f51fae9e93d3ed4c15e049829b0386729e",
}


def build_samples(directory: Path, wheels: Wheels) -> None:
    """Write all samples into ``directory``; recordings are left out, with a message, where they cannot be had."""
    for name in ("china.jpg", "flower.jpg"):
        write(directory / name, wheels.read(packages.SCIKIT_LEARN, f"sklearn/datasets/images/{name}"))
    write(directory / "grace_hopper.jpg", wheels.read(packages.MATPLOTLIB, "*/sample_data/grace_hopper.jpg"))

    font = wheels.read(packages.MATPLOTLIB, "*/fonts/ttf/DejaVuSans.ttf")
    write(directory / "text_line.png", draw_text((TEXT_LINE,), font))
    write(directory / "text_line_upside_down.png", draw_text((TEXT_LINE,), font, upside_down=True))
    write(directory / "text_page.png", draw_text(TEXT_PAGE, font, margin=32))

    for name, content in recordings().items():
        write(directory / name, content)


def draw_text(lines: tuple[str, ...], font: bytes, *, margin: int = 8, upside_down: bool = False) -> bytes:
    """A PNG of ``lines``, black on white, one under the other."""
    typeface = ImageFont.truetype(io.BytesIO(font), 36)
    text = "\n".join(lines)
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, typeface, spacing=40)
    image = Image.new("RGB", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin), "white")
    ImageDraw.Draw(image).text((margin - left, margin - top), text, "black", typeface, spacing=40)
    png = io.BytesIO()
    (image.rotate(180) if upside_down else image).save(png, "PNG")
    return png.getvalue()


def recordings() -> dict[str, bytes]:
    """ALSA's test recordings (16-bit mono WAV, 48 kHz) by name: installed, or out of Debian's package; or none."""
    installed = Path("/", ALSA_SOUNDS)
    if all((installed / name).exists() for name in RECORDINGS):
        return verified(installed)
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with tempfile.TemporaryDirectory() as folder:
            download = subprocess.run(
                ["apt-get", "download", "alsa-utils"], cwd=folder, capture_output=True, text=True, check=False
            )
            if download.returncode == 0:
                (package,) = Path(folder).glob("*.deb")
                subprocess.run(["dpkg-deb", "--extract", str(package), folder], check=True)
                return verified(Path(folder, ALSA_SOUNDS))
        reason = f"`apt-get download alsa-utils` failed (run `apt-get update` first?): {download.stderr.strip()}"
    else:
        reason = "they come from Debian's package alsa-utils, and apt-get is not here"
    print(f"Leaving out the recordings that detect_speech.py listens to: {reason}")
    return {}


def verified(directory: Path) -> dict[str, bytes]:
    found = {name: (directory / name).read_bytes() for name in RECORDINGS}
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != RECORDINGS[name]:
            raise SystemExit(f"{directory / name} is not the recording that is expected: its SHA-256 differs.")
    return found
