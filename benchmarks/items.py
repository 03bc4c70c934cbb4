"""A thousand items in one session: the worker's memory does not grow, and what the session takes on the disk.

A tiny genuine LLaVA, built here, measures a data set of links to a few short clips, each with a prompt of its own,
through the command line's own worker. Over the last 800 items the resident set at each run's end must show no slope:
medians of blocks of 50 runs, a straight line through them by least squares, and the 95 % interval of its slope by
Student's t. Exit code 1 where the whole interval is above zero and the growth over those items is above 0.1 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

BLOCK = 50
MATERIAL = 0.001
"""Growth over the items looked at, as a part of the resident set, that is none."""


def data_set(folder: Path, count: int) -> Path:
    """Links to four clips, and the file that names them."""
    from llava_tui.pipelines.checkpoints import synthesise_video

    clips = [synthesise_video(folder / f"clip{number}.mp4", seconds=1) for number in range(4)]
    (folder / "items").mkdir()
    lines = []
    for number in range(count):
        os.link(clips[number % len(clips)], folder / "items" / f"{number}.mp4")
        prompt = f"What happens in clip {number}{', and then' * (number % 3)}?"
        lines.append(json.dumps({"path": f"items/{number}.mp4", "prompt": prompt, "id": str(number)}))
    file = folder / "set.jsonl"
    file.write_text("\n".join(lines))
    return file


def recorded(folder: Path, count: int) -> Path:
    """The session of one pass over it."""
    from llava_tui.pipelines.checkpoints import build_tiny

    model = build_tiny(folder / "model")
    command = [sys.executable, "-P", "-m", "llava_tui", "--sessions", str(folder / "sessions"), "run"]
    command += ["--model", str(model), "--dataset", str(data_set(folder, count)), "--device", "cpu"]
    command += ["--frames", "1", "--new-tokens", "8", "--warmup", "3", "--no-self-test", "--headless", "--json"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"the run ended with exit code {done.returncode}")
    return next((folder / "sessions").iterdir())


def slope(values: np.ndarray) -> tuple[float, float, float]:
    """Bytes an item, and its 95 % interval."""
    from scipy import stats

    blocks = np.array([np.median(block) for block in np.array_split(values, len(values) // BLOCK)])
    fitted = stats.linregress(np.arange(len(blocks)) * BLOCK, blocks)
    reach = stats.t.ppf(0.975, len(blocks) - 2) * fitted.stderr
    return float(fitted.slope), float(fitted.slope - reach), float(fitted.slope + reach)


def main() -> int:
    """Prints the figures; see the module for the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000)
    options = parser.parse_args()

    from llava_tui.session.timeline import Timeline

    with tempfile.TemporaryDirectory(prefix="llava-tui-items-") as folder:
        path = recorded(Path(folder), options.items)
        view = Timeline.open(path).now()
        runs = view.runs
        rows = np.flatnonzero(runs.where(kind="measured", outcome="ok"))
        rss = np.asarray(runs["rss"])[rows]
        wall = np.asarray(runs["wall"])[rows] / 1e6
        late = rss[len(rss) // 5 :]
        each, low, high = slope(late)
        grown = each * len(late)
        print(f"{len(rows):,} items measured, one a run; {np.median(wall):.1f} ms an item (median)")
        between = np.diff(np.asarray(runs["t"])[rows]) / 1e6
        print(f"{np.median(between):.1f} ms from one run's end to the next: {1000 / np.median(between):.1f} items/s")
        print(f"resident set {late.mean() / 2**20:.1f} MiB; slope over the last {len(late)} items {each:+.0f} bytes an")
        print(f"item (95 % interval {low:+.0f} … {high:+.0f}), {grown / 2**10:+.0f} KiB in all")
        sizes = {file.name: file.stat().st_size for file in path.iterdir()}
        told = ", ".join(f"{name} {size / 1024:,.0f} KiB" for name, size in sorted(sizes.items()) if size > 1024)
        print(f"session {sum(sizes.values()) / 2**20:.2f} MiB: {told}")
        print(f"header {sizes['session.json']:,} bytes")
    return 1 if low > 0 and grown > MATERIAL * late.mean() else 0


if __name__ == "__main__":
    sys.exit(main())
