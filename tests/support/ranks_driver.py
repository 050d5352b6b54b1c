"""tools/train.py's part of a rank, on the tiny project: `ranks_driver.py ROOT STEPS MAX_ITER`, started twice at once."""

from __future__ import annotations

import os
import sys

from tiny_project import TINY

from common import engine
from gender_smile.training import chain, process, ranks
from tools import train


def main(root: str, steps: str, max_iter: str) -> int:
    if os.environ["RANK"] != "0":
        return ranks.follow(root)
    leader, reason = ranks.Leader(2, gpus=False), None
    rows = chain.rows(TINY, ["gnet"], [int(step) for step in steps], root=root, max_iter=int(max_iter))
    try:
        print(train.plan(rows, engine.interpreter("torch"), leader))
        train.run(rows, engine.interpreter("torch"), say=lambda line: print(line, flush=True), leader=leader)
    except process.Stopped as stopped:
        print(stopped)
        return ranks.STOPPED
    except chain.ChainError as error:
        reason = str(error)
        print(error)
        return 1
    finally:
        leader.close(reason)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
