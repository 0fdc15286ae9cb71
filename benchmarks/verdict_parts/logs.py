"""What ``diagnose`` says on strangers' logs, beside what a person says who looked at the curves."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.core.curves import logged_position
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.plugins.logs.reader import read_curves

DATA = Path(
    os.environ.get("HOLDFAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
FOLDER = DATA / "trainer_states"

# Written from the drawn curves, not from the verdicts.
LOOKED = {
    "fabiom91__ConvNeXt_AI_Competition_Platform": (
        "Clear: validation turns at step 1,280 and more than doubles while training goes to "
        "zero; accuracy stuck near 0.6. Overfit, by memory."
    ),
    "MaximilianoPona__image_classification_irrigation_systems": (
        "Down to 0.043, then one worse point at 0.054; F1 0.985. Good; a single last point is "
        "no trend."
    ),
    "ShashankBommana__DNABERT-2": (
        "Validation loss drifts up from 0.25 to 0.29 while accuracy climbs from 0.92 to 0.94 "
        "and training goes to 0.03: too confident."
    ),
    "selvxhini-10__Finetuned-Sentiment-Analysis": (
        "Flat at 0.28 to 0.29 since step 4,500, training level beside it. Converged."
    ),
    "vivekalex61__summary_creator": (
        "Flat and wobbling, 2 to 4 % above the lowest, while training falls on: the beginning "
        "of overfitting, still small. The verdict is on the mild side."
    ),
    "P-Zande__nlp-team-4": (
        "Lowest at step 2,500, then 1 % higher and flat, training falling on: more epochs "
        "would not help. The rise is too small to matter."
    ),
    "alittleO__ViT-RK3588-PySide2-FruitCashier": ("Smooth fall, flat for three epochs. Converged."),
    "paulohenriquecrs__RoBERTa_SEQ_CLS_LoRA_Portuguese": (
        "Slow fall to the end, flattening in the last tenth. Still learning, nearly done."
    ),
    "WELCOME-project__disfluency-tool": (
        "Flat for the second half, training level beside it. Done."
    ),
    "Mohammed20201991__DataSets": (
        "Four points, falling steeply, 6 % of the planned steps. Learning."
    ),
    "akhmetvaleev-ruslan__bashkir-language-audio2text": (
        "Falls to the end. Learning. The training loss is three times the validation loss: "
        "another unit, not a leak."
    ),
    "JakubMroz4__subjectivity-detection": (
        "Five points that jump between 0.56 and 1.23. Nothing can be said."
    ),
    "Jimmy-Mendez__canine-model": ("Both fall slowly from 4.6 to 4.0, still falling. Learning."),
    "eleanorgit__socialIssuesClassifier": (
        "Four points, falling a little; training falls faster. Learning."
    ),
    "Simacoder__saciar_paper": (
        "Four points, falling, flattening; training already half as high. Learning, with a gap "
        "opening."
    ),
    "Dude-0313__LogClassifier_Roberta_V1": (
        "Both to 0.001, accuracy 1.0 on (by the samples per second) five validation rows. The "
        "fit is healthy; five rows prove little."
    ),
    "anra8571__WikipediaLLM__nan": (
        "Every validation loss is NaN while training falls from 5.9 to 5.1: the evaluation is "
        "broken, the training is not. The label is that of NaN; the cause says so."
    ),
    "keras__Aitzaz-Saleem__Detection-of-Tomato-Leaf-Diseases-Using-CNN": (
        "Validation jumps between 0.29 and 0.46 around a floor since epoch 8, training falls "
        "to 0.05. A person suspects the start of overfitting; the noise allows no more."
    ),
    "lightning__0Xero7__slm_training": (
        "Only epochs 10 to 13 of a resumed run; both losses rise by 1 %. Too short to judge."
    ),
    "lightning__HCDescamps__cv-image-classification": (
        "Six points, flat at 0.045, then a jump down to 0.014; accuracy 0.996. Good as far as "
        "it goes, direction unclear."
    ),
}


def section() -> str:
    files = sorted(p for p in FOLDER.iterdir() if p.suffix in (".json", ".csv"))
    lines = [_line(file) for file in files]
    return "\n".join(
        [
            "### 2. Strangers' logs",
            "",
            f"All {len(files)} logs of `trainer_states` are read. The last column was written "
            "from the "
            "drawn curves.",
            "",
            "| log | kind | evaluations | verdict | since | confidence | evidence | looking "
            "at it |",
            "|---|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _line(file: Path) -> str:
    curves = read_curves(file)
    verdict = judge_curves(curves)
    since = (
        ""
        if verdict.since_step is None
        else f"{curves.axis} {logged_position(verdict.since_step):g}"
    )
    because = verdict.because.removeprefix("From the curves only: ").replace("|", "\\|")
    cells = (
        file.stem,
        curves.source,
        curves.points,
        verdict.label,
        since,
        f"{verdict.confidence:.2f}",
        because,
        LOOKED[file.stem],
    )
    return "| " + " | ".join(map(str, cells)) + " |"
