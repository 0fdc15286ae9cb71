"""Letters of Cyrillic and Greek that no reader can tell from a Latin one."""

from __future__ import annotations

# Among the Unicode consortium's confusables (UTS 39).
LOOK_ALIKES = dict(
    zip(
        "АВЕЅІЈКМНОРСТУХасеһіјорѕухԁԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο",
        "ABESIJKMHOPCTYXacehijopsyxdqw" + "ABEZHIKMNOPTYXo",
        strict=True,
    )
)
TO_LATIN = str.maketrans(LOOK_ALIKES)
ANY = f"[{''.join(LOOK_ALIKES)}]"
