"""The built-in lexicon: English terms of gender, origin and world region.

Where each list came from:

- Names of white and of African Americans: the first names of Bertrand and Mullainathan (2004),
  whose bearers a survey told to be so, without those that are words or countries as well (Kenya,
  Ebony, Jay), seven of each, so that the lists are of one length.
- The other first names: chosen by hand among names that are common in the countries they come from
  and no English words. No claim is made of how frequent they are.
- Gendered words: pronouns, kinship and titles in pairs that differ in gender alone.
- Regions: of four regions of the UN's geoscheme M49 eight countries each, with the adjective.
  Names that are also words in small letters (China, Turkey, Chile, Poland's adjective) are left
  out.

A term says what a reader may take a person for, not what a person is. The gender axis has the two
groups that English pronouns and these names mark; no list speaks for people whom it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from holdfast.augment.terms.lexicon import Axis, GroupTerm, TermBlock

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
# Pronouns by what they do in a sentence.
DUTIES = ("subject", "object", "determiner", "possessive", "reflexive")
PRONOUNS = {
    MALE: ("he", "him", "his", "his", "himself"),
    FEMALE: ("she", "her", "her", "hers", "herself"),
}
# male/female, and where there is one the plural.
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
    # Words of ``OTHERS`` fit into no frame, so that their slot is another.
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
