"""Draw the blanks of the truth set from `sources`. After a change of these, run `python benchmarks/truth/draw.py`.

A row of `blanks.jsonl` has the format of the data set RepoEval, so that CI evaluates the truth set like any data set.
In addition to that format, a row has the kind of its blank.
"""

from __future__ import annotations

import json
from pathlib import Path

from policy.evaluation import resample
from policy.evaluation.task import spread, unique

HERE = Path(__file__).parent
BLANKS = 60


def main() -> None:
    """Write `blanks.jsonl` with `BLANKS` blanks."""
    drawn = [task for seed in range(4) for task in resample.load(HERE / "sources", 2 * BLANKS, seed=seed).tasks]
    tasks = sorted(spread(unique(drawn)[0], BLANKS), key=lambda task: task.id)
    with (HERE / "blanks.jsonl").open("w", encoding="utf-8") as file:
        for task in tasks:
            metadata = {
                "task_id": task.id,
                "ground_truth": task.truth,
                "fpath_tuple": [task.repository, *task.path.split("/")],
                "context_start_lineno": 0,
                "line_no": task.cursor.prefix.count("\n"),
                "kind": task.kind,
            }
            file.write(json.dumps({"prompt": task.cursor.prefix, "metadata": metadata}) + "\n")


if __name__ == "__main__":
    main()
