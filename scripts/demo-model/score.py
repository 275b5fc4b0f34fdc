"""How right an answer is: the attributes in it against those of the right answer, one by one; and tables of that.

`slots` finds an answer's attributes, `compare` pairs them with the right ones, `Tally` counts. An attribute that is
missing and one that was made up are both wrong. Not here: questions, pictures, the program.
"""

import math
import re
from collections import Counter, defaultdict

import language

PLACES = [language.place_words((c, r)) for r in range(3) for c in range(3)]
SHAPES = language.SHAPES + language.ABSENT_SHAPES + language.THINGS
PLURALS = {language.plural(s): s for s in SHAPES}
WHOLE = {
    language.NOTHING_NEW: ("silence", "..."), language.DEMO: ("refusal", "demo"),
    language.BLANK: ("state", "blank"), "Blank.": ("state", "blank"),
    language.SNOW: ("state", "snow"), "Snow.": ("state", "snow"),
    language.BARS: ("state", "bars"), "Colour bars.": ("state", "bars"),
    language.ONE_PICTURE: ("doubt", "one picture"), language.CANT_TELL: ("doubt", "can't tell"),
    "The picture is all right.": ("state", "all right"),
    "The picture does not change: it may be frozen.": ("state", "frozen"),
    "There is no text.": ("text", "none"), "No text.": ("text", "none"),
    "There is no clock.": ("clock", "none"), "No clock.": ("clock", "none"),
    "Nothing: an empty scene.": ("there", "nothing"), "Nothing changed.": ("change", "nothing"),
    "Nothing.": ("there", "nothing"), "It is day.": ("daytime", "day"), "It is night.": ("daytime", "night"),
    "Day.": ("daytime", "day"), "Night.": ("daytime", "night"),
}  # fmt: skip
# In the order in which they are tried at each point of an answer.
PATTERNS = [
    ("text", r'"([^"]*)"'),
    ("clock", r"(?:shows )?(\d\d:\d\d(?::\d\d)?)"),
    ("daytime", r"(Night): "),
    ("direction", r"(not moving|nothing is moving)"),
    ("direction", r"mov(?:ing|ed) (left|right|up|down)"),
    ("direction", r"^(Left|Right|Up|Down)\.$"),
    ("change", r"(disappeared|appeared|changed from|was there)"),
    ("place", "(" + "|".join(sorted(PLACES, key=len, reverse=True)) + ")"),
    ("yes", r"^(Yes|No)(?=[,.])"),
    ("more", r"(\d+) more"),
    ("count", r"(\d+)"),
    ("count", r"^(No)(?= \w)"),
    ("there", r"There is (no|nothing)|(?<=there is )(no)"),
    ("warning", r"(Warning)"),
    ("size", r"(" + "|".join(language.SIZES) + r")"),
    ("colour", r"(" + "|".join(language.COLOURS + language.ABSENT_COLOURS) + r")"),
    ("shape", r"(" + "|".join(sorted([*PLURALS, *SHAPES], key=len, reverse=True)) + r")"),
]
COMPILED = [(kind, re.compile(rf"(?<!\w)(?:{p})(?!\w)" if kind in ("size", "colour", "shape", "count") else p,
                              re.IGNORECASE)) for kind, p in PATTERNS]  # fmt: skip
CONFUSED = ["colour", "shape", "size", "place", "direction", "count"]
NONE = "–"


def slots(answer):
    """The attributes of an answer, as (kind, value) in its order."""
    answer = answer.strip()
    if answer in WHOLE:
        return [WHOLE[answer]]
    out, at = [], 0
    while at < len(answer):
        for kind, pattern in COMPILED:
            found = pattern.match(answer, at)
            if found and found.end() > at:
                value = next(g for g in found.groups() if g is not None)
                out.append((kind, tidy(kind, value)))
                at = found.end()
                break
        else:
            at += 1
    return out or [("words", answer.rstrip(".").lower())]


def tidy(kind, value):
    if kind == "text":
        return value
    value = value.lower()
    if kind == "direction" and value in ("not moving", "nothing is moving"):
        return "none"
    if kind == "count" and value == "no":
        return "0"
    if kind == "count":
        return str(int(value))
    return PLURALS.get(value, value) if kind == "shape" else value


def compare(right, said):
    """The slots of both in pairs (kind, right or None, said or None): as many as possible alike, in order."""
    n, m = len(right), len(said)
    best = [[0.0] * (m + 1) for _ in range(n + 1)]
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            best[i][j] = max(best[i + 1][j], best[i][j + 1])
            if right[i][0] == said[j][0]:
                best[i][j] = max(best[i][j], best[i + 1][j + 1] + (3 if right[i] == said[j] else 1))
    out, i, j = [], 0, 0
    while i < n or j < m:
        if i < n and j < m and right[i][0] == said[j][0]:
            worth = 3 if right[i] == said[j] else 1
            if best[i][j] == best[i + 1][j + 1] + worth:
                out.append((right[i][0], right[i][1], said[j][1]))
                i, j = i + 1, j + 1
                continue
        if i < n and (j == m or best[i][j] == best[i + 1][j]):
            out.append((right[i][0], right[i][1], None))
            i += 1
        else:
            out.append((said[j][0], None, said[j][1]))
            j += 1
    return out


def interval(right, n):
    """Wilson's interval of a share, 95 %."""
    if not n:
        return 0.0, 1.0
    z, p = 1.96, right / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


class Tally:
    """Counts of one set of questions."""

    def __init__(self, title):
        self.title = title
        # Per skill: questions, exactly right, attributes, right attributes.
        self.skills = defaultdict(lambda: [0, 0, 0, 0])
        self.wordings = {True: [0, 0], False: [0, 0]}
        self.confusion = {kind: Counter() for kind in CONFUSED}
        self.characters = [0, 0]
        self.wrong = []
        self.remark = None

    def add(self, skill, right, said, seen=None, note=None, must=None):
        """One answer. `must`: of the right answer only these slots are known; others don't count."""
        if must is None:
            pairs, exact = compare(slots(right), slots(said)), right == said.strip()
        else:
            have = slots(said)
            pairs = [(k, v, v if (k, v) in have else next((w for kind, w in have if kind == k), None)) for k, v in must]
            exact = all(r == s for _, r, s in pairs)
        good = sum(r == s for _, r, s in pairs)
        row = self.skills[skill]
        for i, value in enumerate((1, exact, len(pairs), good)):
            row[i] += value
        if seen is not None:
            self.wordings[seen][0] += len(pairs)
            self.wordings[seen][1] += good
        for kind, r, s in pairs:
            if kind in self.confusion:
                self.confusion[kind][r or NONE, s or NONE] += 1
            if kind == "text" and r not in (None, "none"):
                self.characters[0] += len(r)
                self.characters[1] += sum(a == b for a, b in zip(r, s or "", strict=False))
        if not exact:
            self.wrong.append({"skill": skill, "right": right or must, "said": said, "about": note})
        return exact

    def totals(self):
        return [sum(row[i] for row in self.skills.values()) for i in range(4)]

    def attributes(self):
        _, _, n, good = self.totals()
        return good / n if n else 0.0

    def as_json(self):
        n, exact, attributes, good = self.totals()
        return {"questions": n, "exact": exact, "attributes": attributes, "attributes_right": good,
                "remark": self.remark,
                "skills": {k: dict(zip(("questions", "exact", "attributes", "attributes_right"), v, strict=True))
                           for k, v in sorted(self.skills.items())},
                "seen_wordings": self.wordings[True], "held_out_wordings": self.wordings[False],
                "confusion": {kind: [[a, b, c] for (a, b), c in sorted(table.items())]
                              for kind, table in self.confusion.items()}}  # fmt: skip

    def markdown(self):
        out = [f"### {self.title}", "", "| Skill | Questions | Exact | Attributes | Right |", "|---|--:|--:|--:|--:|"]
        for skill, (n, exact, attributes, good) in sorted(self.skills.items()):
            out.append(f"| {skill} | {n} | {percent(exact, n)} | {attributes} | {percent(good, attributes)} |")
        n, exact, attributes, good = self.totals()
        low, high = interval(good, attributes)
        out.append(f"| **all** | {n} | {percent(exact, n)} | {attributes} | **{percent(good, attributes)}** |")
        out += ["", f"95 % interval of the attributes: {low:.1%} to {high:.1%}."]
        (s, sg), (h, hg) = self.wordings[True], self.wordings[False]
        if s and h:
            out.append(f"Wordings of training: {percent(sg, s)}; wordings never trained: {percent(hg, h)}.")
        if self.characters[0]:
            out.append(f"Characters of texts: {percent(self.characters[1], self.characters[0])} in their place.")
        if self.remark:
            out.append(self.remark)
        return "\n".join(out) + "\n"


def percent(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "–"


def confusion_markdown(tallies, kind):
    """Right answers down, what was said across, of several tallies together."""
    table = sum((t.confusion[kind] for t in tallies), Counter())
    order = {"colour": language.COLOURS + language.ABSENT_COLOURS, "shape": language.SHAPES + language.ABSENT_SHAPES,
             "size": language.SIZES, "place": PLACES, "direction": ["left", "right", "up", "down", "none"]}  # fmt: skip
    used = {a for a, _ in table} | {b for _, b in table}
    names = [v for v in order.get(kind, []) if v in used]
    names += sorted(used - set(names) - {NONE}) + ([NONE] if NONE in used else [])
    if not names:
        return ""
    out = [f"#### {kind.capitalize()}", "", "| Right ↓ said → | " + " | ".join(names) + " |",
           "|---" + "|--:" * len(names) + "|"]  # fmt: skip
    for a in names:
        row = [str(table[a, b] or "") for b in names]
        if any(row):
            out.append(f"| {a} | " + " | ".join(row) + " |")
    return "\n".join(out) + "\n"


def check():
    """Every right answer must be understood as itself, and differ from others where it does."""
    import numpy as np

    import scenes

    rng = np.random.default_rng(3)
    for _ in range(3000):
        f = scenes.facts(scenes.sample(rng, int(rng.integers(1, 5))))
        answer = language.ask(rng, f, augment=False)[2]
        found = slots(answer)
        assert found and all(r == s for _, r, s in compare(found, found)), answer
    right, said = slots("A small red circle at the top; a large star."), slots("A small blue circle at the top, moving left.")
    pairs = [("size", "small", "small"), ("colour", "red", "blue"), ("shape", "circle", "circle"),
             ("place", "at the top", "at the top"), ("size", "large", None), ("shape", "star", None),
             ("direction", None, "left")]  # fmt: skip
    assert compare(right, said) == pairs, compare(right, said)


if __name__ == "__main__":
    check()
