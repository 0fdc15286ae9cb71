"""The training of ``holdfast train`` without what follows it (scores, texts, probes, the report): a
script of its own process.

Reads ``recipe.yaml`` and ``job.json`` of the folder; writes ``model`` and ``answer.json``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    from holdfast.fits.fit import fit
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe
    from peers.arms import steps_and_trials

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    given = [f"{key}={value}" for key, value in job["settings"].items()]
    recipe = override(read_recipe(folder / "recipe.yaml"), given)
    prepared, train, valid = prepare_divided(recipe, load_and_divide(recipe).splits)
    start, cpu = time.perf_counter(), time.process_time()
    fitted = fit(prepared, train, valid)
    train_s, train_cpu_s = time.perf_counter() - start, time.process_time() - cpu
    trained = fitted.trained
    answer = {
        "train_s": round(train_s, 3),
        "train_cpu_s": round(train_cpu_s, 3),
        "examples_per_s": round(trained.history[-1].examples_seen / train_s, 3),
        **steps_and_trials(
            str(prepared.recipe.control.policy), trained, fitted.job.advisor, recipe.seed
        ),
        "best_step": trained.best_step,
        "precision": prepared.recipe.train.precision,
        "verdict": trained.verdict.label,
    }
    fitted.network.cpu().save(folder / "model", prepared.loaded.tokenizer)
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(Path(sys.argv[1]))
