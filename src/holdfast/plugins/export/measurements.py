"""What was measured of each form of a model, and which of them is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.plugins.export.inferior import FALSE_KEPT, Inferiority
from holdfast.plugins.export.speed import Times, faster

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"


@dataclass(frozen=True, slots=True)
class ModelForm:
    """The model in one engine and precision. ``valid`` is how much worse it is on the validation
    rows than the model itself (``None``: not asked), ``gap`` the largest difference of a logit on
    made rows, ``size`` the bytes of its file."""

    engine: str
    precision: str
    valid: Inferiority | None = None
    gap: float | None = None
    size: int | None = None

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True)
class FormMeasurements:
    """All forms, the model itself first, and the ``times`` of each; a form that writes nothing (of
    torch) is beside the others for comparison."""

    forms: tuple[ModelForm, ...]
    times: tuple[Times, ...]
    tokens: int | None
    threads: int
    cpu: str

    @property
    def base(self) -> ModelForm:
        """The model itself."""
        return self.forms[0]

    def table(self) -> list[dict[str, Any]]:
        """A line a form: milliseconds a row at each batch, times as fast as the model itself with
        an interval, and how it did on the validation rows."""
        return [self._line(form) for form in self.forms]

    def _line(self, form: ModelForm) -> dict[str, Any]:
        line: dict[str, Any] = {"engine": form.engine, "precision": form.precision}
        line["ms"] = {str(t.batch): round(t.median_ms(form.name), 3) for t in self.times}
        line["times_as_fast"] = {
            str(t.batch): _inverse(t.ratio(form.name, self.base.name)) for t in self.times
        }
        if form.gap is not None:
            line["logit_gap"] = form.gap
        if form.valid is not None:
            line["valid"] = {
                "n": form.valid.n,
                "changed": form.valid.changed,
                "worse": form.valid.value,
                "at_most": form.valid.high,
                "no_worse": form.valid.held,
                "more_rows": form.valid.more,
            }
        if form.size is not None:
            line["bytes"] = form.size
        return line

    def fastest(self) -> ModelForm:
        """Of the forms that are no worse, the one that takes the least time for single rows."""
        safe = [f for f in self.forms if f is self.base or (f.valid and f.valid.held)]
        return min(safe, key=lambda form: self.times[0].median_ms(form.name))


def _inverse(ratio: tuple[float, float, float]) -> dict[str, float]:
    value, low, high = ratio
    return {"value": round(1 / value, 3), "low": round(1 / high, 3), "high": round(1 / low, 3)}


def choose(
    measured: FormMeasurements,
    plain: ModelForm,
    coarse: Sequence[ModelForm],
    metric: str,
    lacking: Mapping[str, str],
) -> tuple[ModelForm, str]:
    """The form that is written: the first of ``coarse`` that is no worse and faster than ``plain``,
    else ``plain``; with the reason. ``lacking`` says of forms that could not be made, why."""
    against = [f"{name} cannot be written: {why}" for name, why in lacking.items()]
    for form in coarse:
        obstacle, said = _obstacle(measured, form, plain, metric)
        if not obstacle:
            return form, "; ".join([f"{form.precision} {said}", *against])
        against.append(f"{form.precision} is not kept: {said}")
    return plain, "; ".join(against)


def _obstacle(
    measured: FormMeasurements, form: ModelForm, plain: ModelForm, metric: str
) -> tuple[bool, str]:
    valid, margin = form.valid, 100 * (form.valid.margin if form.valid else 0.01)
    if valid is None or not valid.n:
        return True, "there are no validation rows to judge it by"
    rows = f"{valid.n} validation rows"
    limit = f"at most {100 * valid.high:.1f} points worse in {metric}, 95 %"
    if not valid.held:
        if valid.value >= valid.margin:
            return True, f"it is {100 * valid.value:.1f} points worse in {metric} on {rows}"
        more = f"; {valid.more} more would settle it" if valid.more else ""
        rule = f"cannot show that it is no worse by {margin:.0f} point ({limit}{more})"
        return True, f"{rows} {rule}"
    quick, ratios = faster(measured.times, form.name, plain.name)
    kept = f"is no worse by {margin:.0f} point on {rows} ({limit})"
    if not quick:
        return True, f"it {kept}, but not surely faster on this machine: {ratios}"
    return False, (
        f"{kept}, and {ratios} as float32; of files that are worse by {margin:.0f} point this rule "
        f"keeps at most {100 * FALSE_KEPT:.0f} in 100"
    )
