"""Where the time of a run goes: a step's parts, the looks, the linear probe, loading, scoring.

    python benchmarks/step_profile.py                 # texts and pictures, the rows of the others
    python benchmarks/step_profile.py --job pictures  # one of them

The runs are those of vs_trainer.py (texts: MiniLM, 1,000 rows of CR, 2 epochs, our defaults) and
of vs_trainer_tasks.py (pictures: 1,000 of CIFAR-10, a small ResNet, 3 epochs), each in a process of
its own. Every stretch is timed by itself: what it calls and is timed too is not in it. Processor
seconds of this process, since a busy machine stretches wall seconds.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import Claim, Line, Lines, average, pick, renamed, table

START = time.process_time()
NAME = "step_profile"
JOBS = ("texts", "pictures")
# What is timed: a title, and where the function is, "module:name" or "module:Class.method".
STRETCHES = (
    ("rows: read, audit, divide", "holdfast.pipeline.main:load_and_divide"),
    ("model, tokens, plan", "holdfast.fits.row_use:prepare_divided"),
    ("model, tokens, plan", "holdfast.fits.fit:make_training_plan"),
    ("linear probe: features of all rows", "holdfast.training.observe:Observer.features"),
    ("linear probe: its fit", "holdfast.tasks.classes.classifier:fit_probe"),
    ("linear probe: its learning curve", "holdfast.models.probes.head_fit:refit_probe"),
    ("looks: validation rows and train probe", "holdfast.training.observe:Observer.measure"),
    ("looks: copies, numbers", "holdfast.training.guard:take_snapshot"),
    ("looks: the state to keep", "holdfast.training.guard:GuardedRun.save_weights"),
    ("looks: verdict and advice", "holdfast.training.engine:GuardEngine._diagnose"),
    ("looks: verdict and advice", "holdfast.training.engine:GuardEngine._decide"),
    ("checkpoints", "holdfast.training.loop:_save_checkpoint"),
    ("step: batch", "COLLATE"),
    ("step: forward", "holdfast.training.step:_losses"),
    ("step: backward", "accelerate:Accelerator.backward"),
    ("step: clip", "torch.nn.utils:clip_grad_norm_"),
    ("step: update", "torch.optim:AdamW.step"),
    ("step: the rest", "holdfast.training.loop:train_step"),
    ("the rest of the training", "holdfast.fits.fit:train"),
    ("save the model", "holdfast.pipeline.main:save_model"),
    ("score the test rows, baselines", "holdfast.pipeline.main:score_once"),
    ("report", "holdfast.pipeline.main:write_pages"),
)
COLLATE = {
    "texts": "holdfast.tasks.classes.encoding:TextClassification.collate",
    "pictures": "holdfast.tasks.images.losses:ImageClassification.collate",
}
LOADED, TRAINED = "imports, command line", "everything else"


class Clock:
    """Processor seconds of nested stretches, each without those inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._open: list[str] = []
        self._since = time.process_time()

    def begin(self) -> float:
        """Forget what was before, and say when that was."""
        self._since = time.process_time()
        self.seconds.clear()
        return self._since

    def enter(self, title: str) -> None:
        self._turn()
        self._open.append(title)
        self.calls[title] += 1

    def leave(self) -> None:
        self._turn()
        self._open.pop()

    def _turn(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1] if self._open else TRAINED] += now - self._since
        self._since = now

    def timed(self, title: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def within(*given: Any, **named: Any) -> Any:
            self.enter(title)
            try:
                return call(*given, **named)
            finally:
                self.leave()

        return within


def watch(clock: Clock, job: str) -> None:
    """Put the clock around every stretch."""
    import importlib

    for title, place in STRETCHES:
        module, _, path = (COLLATE[job] if place == "COLLATE" else place).partition(":")
        owner: Any = importlib.import_module(module)
        *inside, name = path.split(".")
        for step in inside:
            owner = getattr(owner, step)
        setattr(owner, name, clock.timed(title, getattr(owner, name)))


def run_here(job: str, words: Sequence[str], out: Path) -> None:
    """The command with these words, in this process; its clock's figures go to ``out``."""
    from holdfast.cli.main import run

    clock = Clock()
    watch(clock, job)
    loaded = clock.begin() - START
    sys.argv = ["holdfast", *words]
    try:
        run()
    except SystemExit as ended:
        if ended.code:
            raise
    told = {LOADED: loaded, **clock.seconds}
    out.write_text(json.dumps({"seconds": told, "calls": clock.calls}), encoding="utf-8")


def run_one(cell: Mapping[str, Any], quick: bool, threads: int) -> dict[str, Any]:
    from cells import processor
    from peers.process import commit, run_process

    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        folder = Path(name)
        words = _words(str(cell["job"]), int(cell["seed"]), folder, quick)
        script = [sys.executable, str(Path(__file__).resolve()), "--inside", str(cell["job"])]
        run_process([*script, str(folder / "clock.json"), *words], folder, threads)
        told = json.loads((folder / "clock.json").read_text(encoding="utf-8"))
        result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
    timing = {key: result["timing"][key] for key in ("train_s", "examples_per_s", "total_s")}
    looks = told["calls"]["looks: copies, numbers"]
    load = round(os.getloadavg()[0], 2)
    surroundings = {"threads": threads, "commit": commit(), "load_before": load, "cpu": processor()}
    return {
        **timing,
        "steps": result["last_step"],
        "looks": looks,
        **told["seconds"],
        "precision": result["model_facts"]["precision"],
        **surroundings,
    }


def _words(job: str, seed: int, folder: Path, quick: bool) -> list[str]:
    if job == "texts":
        import vs_trainer
        from peers.arms import write_recipe

        parts = vs_trainer.parts_of({"data": "cr", "seed": seed}, quick)
        settings = vs_trainer.arms(1 if quick else 2)[vs_trainer.MAIN].settings
        recipe = write_recipe(parts, folder, seed)
    else:
        import vs_trainer_tasks
        from peers.task_arms import write_task_recipe

        pictures = vs_trainer_tasks.parts_of(job, seed, quick)
        settings = vs_trainer_tasks.arms(job, quick)["holdfast"].settings
        model = vs_trainer_tasks.base_model(job, quick)
        recipe = write_task_recipe(job, model, pictures, folder, seed)
    given = [f"--set={key}={value}" for key, value in settings.items()]
    return ["train", str(recipe), "--out", str(folder / "run"), "--json", "--quiet", *given]


def main(words: Sequence[str]) -> None:
    if words[:1] == ["--inside"]:
        return run_here(words[1], list(words[3:]), Path(words[2]))
    from cells import grid, run_cells
    from peers.script import options, results_path

    parser = options(__doc__ or "")
    parser.add_argument("--job", choices=JOBS, help="one alone")
    chosen = parser.parse_args(words)
    path = results_path(NAME, chosen.threads, chosen.quick)
    todo = grid(seed=range(1 if chosen.quick else 3), job=[chosen.job] if chosen.job else JOBS)
    run = functools.partial(run_one, quick=chosen.quick, threads=chosen.threads)
    run_cells(NAME, todo, run, path, minutes=chosen.minutes)
    return None


def stretches(lines: Lines) -> list[Line]:
    """A line for each run and stretch, with its share of the command's processor time."""
    names = [LOADED, *dict.fromkeys(title for title, _ in STRETCHES), TRAINED]
    return [
        {**line, "stretch": name, "seconds": line.get(name) or 0.0}
        | {"share": (line.get(name) or 0.0) / sum(line.get(n) or 0.0 for n in names)}
        for line in lines
        for name in names
    ]


CALLED = {
    "pictures": "images",
    "rows: read, audit, divide": "rows: read, audit, split",
    "looks: validation rows and train probe": "evaluations: validation rows and training sample",
    "step: clip": "step: gradient clipping",
}


def finding(lines: Lines) -> str:
    parts = []
    for job in JOBS:
        some = pick(stretches(lines), job=job)
        if some:
            each = [
                sum(line["share"] for line in some if line["stretch"].startswith(what))
                for what in ("step", "look", "imports")
            ]
            number_of = len(pick(lines, job=job))
            steps, looks, imports = (100 * one / number_of for one in each)
            parts.append(
                f"on {CALLED.get(job, job)}, training steps take {steps:.0f} %, evaluations "
                f"{looks:.0f} % and imports {imports:.0f} %"
            )
    return f"Of the processor time of a command {'; '.join(parts)} (no interval: one or two runs)."


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "Where the time of a command goes",
    """\
The processor time of each part of `holdfast train`, in one process, without the parts that are
listed by themselves. Texts: MiniLM, 1,000 rows of CR, 2 epochs; images: a small ResNet, 1,000
images of CIFAR-10, 3 epochs.""",
    lambda: __import__("cells").grid(seed=range(3), job=JOBS),
    finding,
    [
        lambda lines: table(
            {"job": "Data", "stretch": "Part"},
            {
                "Seconds": average("seconds", 1, 2, limits=False),
                "Share, %": average("share", 100, limits=False),
            },
        )(
            renamed(
                [line for line in stretches(lines) if line["share"] >= LEAST_SHOWN],
                job=CALLED,
                stretch=CALLED,
            )
        )
    ],
    "Parts below 1 % are not listed.",
)
LEAST_SHOWN = 0.01


if __name__ == "__main__":
    main(sys.argv[1:])
