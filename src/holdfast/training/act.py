"""The only place that applies actions to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.core.errors import Defect

if TYPE_CHECKING:
    from holdfast.core.records import Action
    from holdfast.training.run import Run


def act(run: Run, action: Action) -> None:
    """Apply one action and write it into the journal with its reason.

    ``Stop`` ends the run after this evaluation point; ``Continue`` changes nothing;
    ``HalveBatch`` has been done by then.
    """
    if action.action == "Stop":
        run.stop_because = action.because
    elif action.action not in ("Continue", "HalveBatch"):
        raise Defect("control", "advised an action that the loop cannot apply", action.action)
    run.actions.append((run.step, action))
    run.journal.write(
        "action", run.step, action=action.action, because=action.because, settings=action.settings
    )
