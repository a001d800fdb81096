"""Finding phrases: items of a list of findings that are not the name of a finding that is present.

'No effusion', 'possible effusion', 'effusion?' and 'not assessed' would otherwise become new findings that are present,
and the finding that they name would be absent. A sentence may be the text of a report, which is patient data.
"""

import re
from collections.abc import Collection

from ribcage.data import findings

NEGATED = frozenset((
    "no", "not", "without", "absent", "absence", "lacking", "denies", "denied", "negative", "neg", "nil",
    "none", "never", "excluded", "resolved", "unremarkable", "kein", "keine", "keinen", "ohne", "sans", "aucun",
    "aucune", "sin", "ningún"
))  # fmt: skip
UNCERTAIN = frozenset((
    "possible", "possibly", "probable", "probably", "likely", "unlikely", "potential", "potentially",
    "suspected", "suspect", "suspicious", "suspicion", "uncertain", "questionable", "question", "equivocal",
    "maybe", "perhaps", "may", "might", "could", "cannot", "indeterminate", "inconclusive", "unclear", "unsure",
    "doubtful", "presumed", "presumably", "consider", "query", "differential", "vs", "versus", "verdacht",
    "fraglich", "posible"
))  # fmt: skip
UNKNOWN = frozenset((
    "unknown", "unassessed", "undetermined", "unlabelled", "unlabeled", "unannotated", "pending", "ungradable",
    "missing", "unavailable"
))  # fmt: skip
SENTENCE_WORDS = frozenset((
    "has", "have", "had", "is", "are", "was", "were", "she", "he", "her", "his", "patient", "mr", "mrs",
    "since", "seen", "shows", "there", "this", "please"
))  # fmt: skip
"""Words of sentences, which no name of a finding has."""
PHRASES = re.compile(
    r"\brul(?:e|ed|ing)[\W_]+out\b|"
    # 'patent', 'undifferentiated' and 'innominate' are parts of names
    r"未(?!闭|分化|定型)|^无(?!名|气)|没有|排除|除外|否认|阴性|不(?:确定|明|详|能|可评)|可能|可疑|疑|考虑|待(?:排|查|定)|倾向",
    re.IGNORECASE,
)
SIGNS = re.compile(r"[?？±]|\+/-|\b[rw]/o\b|[-−–—]\W*$|[:=：]\s*-?[01]\W*$", re.IGNORECASE)
"""Signs of a label other than 'present', also after the name of a known finding: 'Effusion?', 'Effusion (-)'."""
OPPOSITES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:no|non|not|without)[\W_]+(.+)", r"(.+?)[\W_]+(?:absent|negative|neg)", r"(?:无|未见)(.+)", r"(.+)阴性"
    )
)  # fmt: skip
PRESENT = re.compile(r"[\W_]+(?:present|positive|pos)$|阳性$", re.IGNORECASE)
MOST_WORDS, MOST_LETTERS, MOST_CHINESE = 8, 60, 20
"""The longest name of a finding; anything longer is a text."""


def is_text(item: str) -> bool:
    """Whether an item is a sentence or longer than the name of a finding."""
    words = re.findall(r"[^\W\d_]+", item)
    ends = re.search(r"[.。!！](\s|$)", item) is not None and (len(words) >= 3 or len(item) > MOST_CHINESE)
    long = len(words) > MOST_WORDS or len(item) > MOST_LETTERS
    spoken = len(words) > 1 and not SENTENCE_WORDS.isdisjoint(word.casefold() for word in words)
    return ends or long or spoken or len(re.findall(r"[\u4e00-\u9fff]", item)) > MOST_CHINESE


def is_unclear(item: str) -> bool:
    """Whether an item is negated, uncertain, not assessed or without a letter or digit, so that it does not say that a
    finding is present."""
    if SIGNS.search(item) or not findings.plain_letters(item):
        return True
    words = {*re.findall(r"[^\W_]+", item.casefold())}
    if words & (NEGATED | UNCERTAIN | UNKNOWN) or PHRASES.search(item):
        return True
    return "non" in words and findings.is_known_finding(opposite(item))


def opposite(item: str) -> str:
    """The finding whose absence an item states: 'no effusion' → 'effusion'; "" for anything else."""
    if SIGNS.search(item):
        return ""
    found = (pattern.fullmatch(item.strip()) for pattern in OPPOSITES)
    return next((match[1] for match in found if match and not is_unclear(match[1])), "")


def negated_class(items: Collection[str]) -> str:
    """The item that states the absence of the only other one, as in 'COVID' and 'non-COVID'; "" if there is none."""
    for item in items:
        others = {findings.plain_letters(PRESENT.sub("", other)) for other in items if other != item}
        if others == {findings.plain_letters(opposite(item))}:
            return item
    return ""
