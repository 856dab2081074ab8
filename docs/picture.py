"""Plays the demo and draws what it printed: `python docs/picture.py` writes docs/demo.svg."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

FROM, TO = "Merge all three", "the best merge here"
FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def main() -> None:
    """The second half of the demo, from the merges on: the first half is training and tables of inputs."""
    run = subprocess.run(
        [sys.executable, "-m", "loramerge", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    text = run.stdout[run.stdout.index(FROM) : run.stdout.index(TO)]
    text = re.sub(r"\n\s*\n(\s*\n)+", "\n\n", text)
    width = max(len(line.rstrip()) for line in text.splitlines()) + 1
    console = Console(record=True, width=width, file=io.StringIO())
    for line in text.splitlines():
        style = "bold green" if "$ loramerge" in line else ""
        console.print(Text(line.rstrip(), style=style))
    # A picture in a README may not fetch fonts; any monospaced one will do.
    drawn = FONTS.sub("", console.export_svg(title="loramerge demo"))
    (Path(__file__).parent / "demo.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
