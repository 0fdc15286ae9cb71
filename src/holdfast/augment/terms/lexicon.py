"""Lexicons of group terms: axes (gender, origin, …), each with groups, each with terms.

Users may provide their own. The built-in lexicon has English terms for gender, origin and world
region.

Sources of the built-in lists:

- Names of white and of African Americans: the first names of Bertrand and Mullainathan (2004),
  which survey participants associated with these groups, without names that are also words or
  countries (Kenya, Ebony, Jay); seven of each, so that the lists have equal lengths.
- Other first names: selected by hand among common names of the respective countries that are not
  English words. Their frequency was not checked.
- Gendered words: pronouns, kinship terms and titles in pairs that differ only in gender.
- Regions: eight countries, with the adjective, of each of four regions of the UN geoscheme M49.
  Names that are also words in lowercase (China, Turkey, Chile, Poland's adjective) are omitted.

A term shows what a reader may take a person for, not what a person is. The gender axis has the two
groups that English pronouns and these names mark; no list represents people whom it omits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from holdfast.core.discovery import suggest_name, user_path
from holdfast.core.errors import RecipeError
from holdfast.core.yaml_values import read_yaml

WORD = "word"
MOST_TERMS = 2000


@dataclass(frozen=True, slots=True)
class GroupTerm:
    """One term with its forms: slot (subject, country, plural, …) → word."""

    forms: tuple[tuple[str, str], ...]

    def word(self, slot: str) -> str | None:
        """The form for ``slot``; ``None`` if the term has none."""
        return dict(self.forms).get(slot)


@dataclass(frozen=True, slots=True)
class TermBlock:
    """Terms of one type (first names, say) by group, in lists of equal length.

    ``matched``: the k-th term of a group corresponds to the k-th term of the others (father,
    mother). Otherwise (names) any term can represent its group, and the terms are a sample.
    ``frame`` is inserted before a text without terms; ``{}`` is the term's form of the slot
    ``framed``.
    """

    name: str
    groups: Mapping[str, tuple[GroupTerm, ...]]
    matched: bool = False
    frame: str | None = None
    framed: str = WORD

    @property
    def size(self) -> int:
        """How many terms each group has."""
        return len(next(iter(self.groups.values())))

    @property
    def insertable(self) -> list[int]:
        """The indices of terms that fit into the frame in every group."""
        if self.frame is None:
            return []
        every = self.groups.values()
        return [k for k in range(self.size) if all(terms[k].word(self.framed) for terms in every)]


@dataclass(frozen=True)
class Axis:
    """An axis (``name``, such as gender) with blocks of terms for the same groups."""

    name: str
    blocks: tuple[TermBlock, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups."""
        return tuple(self.blocks[0].groups)

    @cached_property
    def known(self) -> Mapping[str, tuple[tuple[int, str, int, str], ...]]:
        """Word in lowercase → each (block, group, place, slot) that it may be."""
        found: dict[str, list[tuple[int, str, int, str]]] = {}
        for number, block in enumerate(self.blocks):
            for group, terms in block.groups.items():
                for place, term in enumerate(terms):
                    for slot, word in term.forms:
                        found.setdefault(word.casefold(), []).append((number, group, place, slot))
        return {word: tuple(each) for word, each in found.items()}

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """A pattern that matches any of the terms as a whole word, the longest first."""
        words = sorted(self.known, key=len, reverse=True)
        return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.I)


def read_lexicon(path: str | Path) -> dict[str, Axis]:
    """The axes of a user's file, YAML: ``AXIS: {groups: {GROUP: [terms], …}, frame: "A {} said: ",
    matched: false}``; or, without a frame, ``AXIS: {GROUP: [terms], …}``.

    Raises ``RecipeError`` if the file does not have that form, a group has no term or another
    number of terms than the others, or a term is in two groups of an axis.
    """
    given = read_yaml(user_path(path))
    if not isinstance(given, Mapping) or not given:
        raise _wrong(path, "must be a table of axes, each with groups of terms", given)
    return {str(name): _axis(path, str(name), one) for name, one in given.items()}


def _axis(path: str | Path, name: str, given: object) -> Axis:
    if not isinstance(given, Mapping):
        raise _wrong(path, f"must give {name} a table of groups", given)
    plain = "groups" not in given
    groups = given if plain else given["groups"]
    for key in () if plain else given:
        if key not in ("groups", "frame", "matched"):
            rule = f"has an unknown key under {name}"
            raise RecipeError(str(path), rule, key, suggest_name(str(key), ["groups", "frame"]))
    frame = None if plain else given.get("frame")
    if frame is not None and (not isinstance(frame, str) or frame.count("{}") != 1):
        raise _wrong(path, f"must give {name} a frame with exactly one {{}}", frame)
    return Axis(name, (_block(path, name, groups, frame, bool(given.get("matched", False))),))


def _block(path: str | Path, name: str, groups: Any, frame: str | None, matched: bool) -> TermBlock:
    listed = isinstance(groups, Mapping) and all(isinstance(one, list) for one in groups.values())
    if not listed or len(groups) < 2:
        raise _wrong(path, f"must give {name} two groups or more, each a list of terms", groups)
    terms = {str(group): [str(word).strip() for word in words] for group, words in groups.items()}
    sizes = {group: len(words) for group, words in terms.items()}
    if len(set(sizes.values())) > 1 or not all(sizes.values()) or sum(sizes.values()) > MOST_TERMS:
        raise _wrong(
            path,
            f"must give all groups of {name} the same number of terms, at least one each and at "
            f"most {MOST_TERMS:,} in total",
            sizes,
        )
    groups_by_term: dict[str, str] = {}
    for group, words in terms.items():
        for word in words:
            if not word or groups_by_term.setdefault(word.casefold(), group) != group:
                raise _wrong(path, f"must have each term of {name} in one group only", word)
    made = {
        group: tuple(GroupTerm(((WORD, word),)) for word in words) for group, words in terms.items()
    }
    return TermBlock(name, made, matched, frame)


def _wrong(path: str | Path, rule: str, value: object) -> RecipeError:
    remedy = "Example: age: {frame: 'A {} person wrote: ', groups: {young: [young], old: [old]}}."
    return RecipeError(str(path), rule, value, remedy)


FEMALE, MALE = "female", "male"
SAYS = "{} says: "
# (origin, gender): seven first names.
NAMES: Mapping[tuple[str, str], str] = {
    ("white American", FEMALE): "Emily Anne Jill Allison Laurie Sarah Meredith",
    ("white American", MALE): "Todd Neil Geoffrey Brett Brendan Greg Matthew",
    ("African American", FEMALE): "Aisha Keisha Tamika Lakisha Tanisha Latoya Latonya",
    ("African American", MALE): "Rasheed Tremayne Kareem Darnell Tyrone Jamal Jermaine",
    ("Hispanic", FEMALE): "Camila Ximena Lucia Mariana Yolanda Consuelo Beatriz",
    ("Hispanic", MALE): "Diego Jorge Alejandro Javier Santiago Pablo Ramon",
    ("Arabic", FEMALE): "Fatima Zainab Yasmin Khadija Layla Samira Amira",
    ("Arabic", MALE): "Mohammed Ahmed Omar Mustafa Youssef Ibrahim Hassan",
    ("South Asian", FEMALE): "Priya Anjali Deepika Lakshmi Sunita Kavita Pooja",
    ("South Asian", MALE): "Rahul Sanjay Arjun Vikram Rajesh Suresh Anil",
    ("East Asian", FEMALE): "Mei Yuki Akiko Keiko Minji Xiuying Yoko",
    ("East Asian", MALE): "Hiroshi Kenji Takashi Wei Minho Jianguo Haruto",
}
# Pronouns by their function in a sentence.
DUTIES = ("subject", "object", "determiner", "possessive", "reflexive")
PRONOUNS = {
    MALE: ("he", "him", "his", "his", "himself"),
    FEMALE: ("she", "her", "her", "hers", "herself"),
}
# male/female, and the plural if there is one.
PAIRED = """
man/woman men/women
boy/girl boys/girls
father/mother fathers/mothers
dad/mom dads/moms
daddy/mommy
son/daughter sons/daughters
brother/sister brothers/sisters
husband/wife husbands/wives
uncle/aunt uncles/aunts
nephew/niece nephews/nieces
grandfather/grandmother grandfathers/grandmothers
grandson/granddaughter grandsons/granddaughters
boyfriend/girlfriend boyfriends/girlfriends
gentleman/lady gentlemen/ladies
actor/actress actors/actresses
waiter/waitress waiters/waitresses
businessman/businesswoman businessmen/businesswomen
king/queen kings/queens
prince/princess princes/princesses
"""
OTHERS = "mr/mrs male/female males/females masculine/feminine sir/madam"
REGIONS: Mapping[str, str] = {
    "Africa": "Nigeria/Nigerian Ghana/Ghanaian Kenya/Kenyan Ethiopia/Ethiopian Senegal/Senegalese "
    "Uganda/Ugandan Morocco/Moroccan Tanzania/Tanzanian",
    "Asia": "India/Indian Pakistan/Pakistani Vietnam/Vietnamese Thailand/Thai Indonesia/Indonesian "
    "Malaysia/Malaysian Bangladesh/Bangladeshi Japan/Japanese",
    "Europe": "Germany/German France/French Italy/Italian Sweden/Swedish Spain/Spanish "
    "Norway/Norwegian Portugal/Portuguese Austria/Austrian",
    "Latin America": "Mexico/Mexican Brazil/Brazilian Colombia/Colombian Peru/Peruvian "
    "Bolivia/Bolivian Ecuador/Ecuadorian Guatemala/Guatemalan Argentina/Argentinian",
}


@cache
def built_in() -> dict[str, Axis]:
    """The axes ``gender``, ``origin`` and ``region``."""
    words: dict[str, list[GroupTerm]] = {MALE: [], FEMALE: []}
    # Words of ``OTHERS`` do not fit into the frame, so they have a slot of their own.
    lines = [
        *((line.split(), ("noun", "plural")) for line in PAIRED.strip().splitlines()),
        *(([pair], ("other",)) for pair in OTHERS.split()),
    ]
    for pairs, slots in lines:
        for k, group in enumerate((MALE, FEMALE)):
            forms = zip(slots, (pair.split("/")[k] for pair in pairs), strict=False)
            words[group].append(GroupTerm(tuple(forms)))
    pronouns = {
        group: (GroupTerm(tuple(zip(DUTIES, forms, strict=True))),)
        for group, forms in PRONOUNS.items()
    }
    paired = {group: tuple(terms) for group, terms in words.items()}
    origins = tuple(dict.fromkeys(origin for origin, _ in NAMES))
    names = {
        key: tuple(GroupTerm((("name", name),)) for name in each.split())
        for key, each in NAMES.items()
    }
    by_origin = [
        TermBlock(f"names, {o}", {g: names[o, g] for g in (MALE, FEMALE)}, False, SAYS, "name")
        for o in origins
    ]
    by_gender = [
        TermBlock(f"{g} names", {o: names[o, g] for o in origins}, False, SAYS, "name")
        for g in (FEMALE, MALE)
    ]
    countries = {
        region: tuple(
            GroupTerm(tuple(zip(("country", "adjective"), pair.split("/"), strict=True)))
            for pair in pairs.split()
        )
        for region, pairs in REGIONS.items()
    }
    gender = (
        TermBlock("pronouns", pronouns, True),
        TermBlock("words", paired, True, "The {} says: ", "noun"),
        *by_origin,
    )
    region = (TermBlock("countries", countries, False, "From {}: ", "country"),)
    return {
        "gender": Axis("gender", gender),
        "origin": Axis("origin", tuple(by_gender)),
        "region": Axis("region", region),
    }
