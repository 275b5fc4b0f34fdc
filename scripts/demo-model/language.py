"""What the demo model can be asked, and what it must answer: the one definition of its skills.

Given the facts of a clip (`scenes.py`), `ask` draws a question and gives the only right answer to it. Answers are
a function of facts and question, so every score is exact. Not here: pictures (`render.py`), tokens (`tokens.py`).

`seen=True` draws from the wordings that training sees; `seen=False` from those kept for the evaluation.
"""

import re
from pathlib import Path

import held_out
import wordings

SHAPES = ["circle", "square", "triangle", "star", "cross", "heart"]
COLOURS = ["red", "green", "blue", "yellow", "orange", "purple", "white", "cyan"]
SIZES = ["small", "medium", "large"]
# Words that people may ask for and that no picture holds: the answer is a plain "no".
ABSENT_SHAPES = ["hexagon", "diamond", "ring", "rectangle", "oval", "arrow"]
ABSENT_COLOURS = ["pink", "black", "brown", "grey"]
PLURALS = {"cross": "crosses", "box": "boxes", "plus sign": "plus signs"}
SYNONYMS = {"circle": ["ball", "disc"], "square": ["box"], "cross": ["plus sign"]}
THINGS = ["shape", "object", "thing"]

NOTHING_NEW = "..."
DEMO = (
    "I am only a demo model: I know drawn shapes and short texts. "
    "For the real one, run: vidette pull minicpm-o-4.5"
)
BLANK = "The picture is blank."
SNOW = "Only snow: there is no signal."
BARS = "Colour bars: a test picture."
ONE_PICTURE = "I can't tell from one picture."
CANT_TELL = "I can't tell."

# The words around the frames, exactly as the program writes them (src/commentary/prompt.rs, profiles.rs).
WHO = (
    "You are Vidette, a sentry who watches a live video. Each time you see its latest frames, the oldest first."
)
HOUSE_RULE = 'When there is nothing new to say, answer "..." and nothing else.'
PROFILES = {
    "default": ("Comment on what happens in one or two short sentences.", "Tell me what you see."),
    "sports": (
        "Comment like a sports reporter: lively, short, about the action and who does it.",
        "Comment on the play.",
    ),
    "security": (
        "Watch like a guard: report people, vehicles, open doors and anything unusual, soberly, "
        "with place and direction. Say nothing about a quiet scene.",
        "Report anything that matters for safety.",
    ),
    "nature": (
        "Comment like a naturalist: animals and what they do, plants, weather and light; name species "
        "only when you can tell.",
        "Tell me about the animals and the weather.",
    ),
    "descriptive": (
        "Describe for a blind listener: the place, who and what is there and where (left, right, near, "
        'far), text that can be read, then what changes. Never say "as you can see".',
        "Describe the scene for me.",
    ),
}


def system(profile="default"):
    return f"{WHO} {PROFILES[profile][0]} {HOUSE_RULE}"


def context(comments):
    """What the program reminds the model of (History::context in prompt.rs)."""
    if not comments:
        return ""
    if len(comments) == 1:
        return f"Your last comment was: {comments[0]}; do not repeat it."
    return "Your last comments were, the newest last:\n" + "\n".join(comments) + "\nDo not repeat them."


def _wordings(skill):
    """(seen in training, kept for the evaluation)."""
    kept = getattr(held_out, skill)
    lower = {w.lower() for w in kept}
    more = (Path(__file__).parent / f"more_wordings/{skill}.txt").read_text().splitlines()
    seen = getattr(wordings, skill) + more
    return [w for w in seen if w.lower() not in lower], kept


DESCRIBE = _wordings("DESCRIBE")
COUNT = _wordings("COUNT")
COLOUR = _wordings("COLOUR")
MOVING = _wordings("MOVING")
DIRECTION = _wordings("DIRECTION")
WHERE = _wordings("WHERE")
READ = _wordings("READ")
CLOCK = _wordings("CLOCK")
ONLY = _wordings("ONLY")
ONLY_PLAIN = _wordings("ONLY_PLAIN")
WARN = _wordings("WARN")
PRESENT = _wordings("PRESENT")
WHICH_SHAPE = _wordings("WHICH_SHAPE")
HOW_BIG = _wordings("HOW_BIG")
CHANGED = _wordings("CHANGED")
DAYTIME = _wordings("DAYTIME")
STATE = _wordings("STATE")
FEW = _wordings("FEW")
# Words that change nothing, put in now and then; words that can be left out.
FILLERS = ["please", "just", "now", "actually", "again", "then", "still", "kindly", "exactly", "currently", "really",
           "for me", "maybe", "today", "also", "simply", "quickly", "once more"]  # fmt: skip
# Ways to put a request ({v}) and a question ({q}) that change nothing either.
POLITE = ["can you {v}?", "could you {v}?", "could you please {v}?", "would you {v}, please?", "please {v}.",
          "I want you to {v}.", "I'd like you to {v}.", "now {v}.", "{v}, please.", "just {v}.", "can you please {v}?",
          "will you {v}?", "your task: {v}.", "go on and {v}.", "for me, {v}."]  # fmt: skip
ASIDES = ["tell me: {q}", "I wonder: {q}", "question: {q}", "look closely: {q}", "answer this: {q}", "quick: {q}",
          "and now, {q}", "in this picture, {q}", "in the video, {q}", "on the screen, {q}", "please say: {q}",
          "looking at it, {q}", "one question: {q}", "so, {q}", "from what you see, {q}"]  # fmt: skip
REQUESTS = set("""tell describe count read find say list check look name give report locate spell explain comment watch
warn alert point show transcribe compare spot notify summarise identify track follow estimate detect""".split())
QUESTIONS = set("what where which how is are do does can has did who".split())
DROPPABLE = {"the", "is", "a", "of", "in", "me", "do", "it", "there", "that", "are", "you", "and", "please"}
# What "otherwise say …" may ask for, besides words drawn at random.
OTHERWISE = ["no", "nothing there", "all quiet", "all clear", "not here", "none", "gone", "not seen", "quiet", "empty"]

# Everything else. The first list is trained on, the second kept for the evaluation.
OTHER_NOUNS = (
    ["dog", "cat", "car", "man", "woman", "person", "child", "baby", "door", "window", "bird", "horse", "house", "tree",
     "truck", "bike", "bus", "table", "chair", "phone", "computer", "burglar", "mailman", "parcel", "package", "cup",
     "fire", "smoke", "knife", "gun", "flower", "mountain", "river", "boat", "plane", "train", "cow", "sheep", "pig",
     "rabbit", "fish", "face", "hand", "shoe", "hat", "bag", "bottle", "book", "lamp", "bed", "sofa", "kitchen", "road",
     "street", "bridge", "tower", "church", "shop", "robot", "police officer", "neighbour", "student", "teacher",
     "doctor", "goal", "player", "referee", "football", "tennis racket", "umbrella", "key", "wallet", "laptop", "mouse",
     "keyboard", "traffic light", "bicycle", "motorcycle", "elephant", "lion", "tiger", "bear", "fox", "deer", "duck",
     "chicken", "spider", "bee", "snake", "apple", "banana", "pizza", "cake", "sandwich", "glass", "fork", "spoon",
     "guitar", "piano", "drum", "camera man", "soldier", "visitor", "guest", "postman", "gate", "fence", "garden",
     "garage", "roof", "wall", "floor", "stairs", "elevator", "crane", "tractor", "helicopter", "drone", "balloon"],
    ["wolf", "scooter", "lady", "kid", "thief", "delivery van", "squirrel", "candle", "suitcase", "monkey"],
)  # fmt: skip
OTHER_FORMS = [
    "Where is the {n}?", "Is there a {n}?", "Do you see a {n}?", "What colour is the {n}?", "How many {n}s are there?",
    "Warn me when a {n} appears.", "Only tell me about the {n}.", "Only tell me what the {n} does.",
    "What is the {n} doing?", "Count the {n}s.", "Tell me when a {n} comes.", "Is the {n} moving?", "Find the {n}.",
    "Who is the {n}?", "How old is the {n}?", "Describe the {n}.", "Alert me if you see a {n}.", "Is the {n} open?",
    "Which way does the {n} move?", "Tell me about the {n}.", "Why is the {n} there?", "Watch the {n}.",
]  # fmt: skip
OTHER = _wordings("OTHER")


def plural(word):
    return PLURALS.get(word, word + "s")


def article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def place_words(place):
    """`place` is (column, row), each 0, 1 or 2."""
    column, row = place
    if place == (1, 1):
        return "in the centre"
    if row == 1:
        return "on the left" if column == 0 else "on the right"
    if column == 1:
        return "at the top" if row == 0 else "at the bottom"
    return f"at the {('top', '', 'bottom')[row]} {('left', '', 'right')[column]}"


def capital(sentence):
    return sentence[0].upper() + sentence[1:]


def name(o):
    """Colour and shape in the newest frame in which the object is visible."""
    return f"{o['colour']} {o['shape']}"


def join(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def describe(f):
    if f["kind"] != "scene":
        return {"blank": BLANK, "snow": SNOW, "bars": BARS}[f["kind"]]
    here = f["here"]
    parts = []
    for o in here[:3]:
        part = f"{article(o['size'] + ' ' + name(o))} {place_words(o['place'])}"
        if o["motion"]:
            part += f", moving {o['motion']}"
        parts.append(part)
    if len(here) > 3:
        parts.append(f"{len(here) - 3} more")
    if f["text"]:
        parts.append(f'the text "{f["text"]}"')
    if not parts:
        return "Nothing: an empty scene."
    return ("Night: " if f["daytime"] == "night" else "") + capital("; ".join(parts)) + "."


def describe_briefly(f):
    if f["kind"] != "scene":
        return {"blank": "Blank.", "snow": "Snow.", "bars": "Colour bars."}[f["kind"]]
    parts = [name(o) for o in f["here"][:3]]
    if len(f["here"]) > 3:
        parts.append(f"{len(f['here']) - 3} more")
    if f["text"]:
        parts.append(f'"{f["text"]}"')
    return capital(", ".join(parts)) + "." if parts else "Nothing."


class Picker:
    """A question's choices, drawn from one random generator, from the wordings that are allowed."""

    def __init__(self, rng, seen):
        self.rng, self.seen = rng, seen

    def chance(self, p):
        return self.rng.random() < p

    def of(self, items):
        return items[int(self.rng.integers(len(items)))]

    def wording(self, pair):
        return self.of(pair[0] if self.seen else pair[1])

    def shape_word(self, shape):
        """The shape as people call it."""
        return self.of(SYNONYMS[shape]) if shape in SYNONYMS and self.chance(0.2) else shape

    def target(self, f, present=None, both=0.7):
        """A thing to ask about: (colour or None, shape or None). Half of the time it is in the newest frame."""
        objects = f["here"]
        if objects and (present if present is not None else self.chance(0.55)):
            o = self.of(objects)
            colour, shape = o["colour"], o["shape"]
        else:
            colour = self.of(ABSENT_COLOURS) if self.chance(0.06) else self.of(COLOURS)
            shape = self.of(ABSENT_SHAPES) if self.chance(0.06) else self.of(SHAPES)
            if objects and self.chance(0.4):  # a near miss: one of the two is there
                o = self.of(objects)
                colour, shape = (o["colour"], shape) if self.chance(0.5) else (colour, o["shape"])
        roll = self.rng.random()
        if roll < both:
            return colour, shape
        return (None, shape) if roll < both + 0.65 * (1 - both) else (colour, None)


def matching(objects, target):
    colour, shape = target
    return [o for o in objects if colour in (None, o["colour"]) and shape in (None, o["shape"])]


def words_of(p, target, many=False):
    colour, shape = target
    noun = p.shape_word(shape) if shape else p.of(THINGS)
    noun = plural(noun) if many else noun
    return f"{colour} {noun}" if colour else noun


def plain(target):
    colour, shape = target
    return " ".join(w for w in (colour, shape or "shape") if w)


def no_such(target):
    colour, shape = target
    return f"There is nothing {colour}." if shape is None else f"There is no {plain(target)}."


def unclear(f):
    """The answer when the picture itself can't be judged, or None."""
    return {"snow": SNOW, "bars": BARS, "blank": BLANK}.get(f["kind"])


def one_of(p, f, both=0.7):
    """A target that at most one object fits."""
    for _ in range(20):
        target = p.target(f, both=both)
        found = matching(f["here"], target)
        if len(found) <= 1:
            return target, (found[0] if found else None)
    colour, shape = "pink", p.of(SHAPES)
    return (colour, shape), None


def q_describe(p, f):
    return p.wording(DESCRIBE), describe(f), describe_briefly(f)


def q_count(p, f):
    roll = p.rng.random()
    if roll < 0.25:
        target, noun = (None, None), plural(p.of(THINGS))
    else:
        target = p.target(f, both=0.35)
        noun = words_of(p, target, many=True)
    n = len(matching(f["here"], target)) if f["kind"] == "scene" else 0
    colour, shape = target
    one, many = plain(target), " ".join(w for w in (colour, plural(shape or "shape")) if w)
    answer = f"{n} {one if n == 1 else many}." if n else f"No {many}."
    return p.wording(COUNT).format(p=noun), answer, f"{n}."


def q_colour(p, f):
    for _ in range(20):
        shape = p.target(f, both=1.0)[1]
        found = matching(f["here"], (None, shape))
        if len(found) <= 1:
            break
    else:
        shape, found = "hexagon", []
    answer = f"The {shape} is {found[0]['colour']}." if found else no_such((None, shape))
    brief = f"{capital(found[0]['colour'])}." if found else no_such((None, shape))
    return p.wording(COLOUR).format(x=p.shape_word(shape)), answer, brief


def movers(f):
    return [o for o in f["here"] if o["motion"]]


def q_moving(p, f):
    question = p.wording(MOVING)
    if f["kind"] == "snow":
        return question, SNOW, SNOW
    if f["frames"] == 1:
        return question, ONE_PICTURE, CANT_TELL
    moving = movers(f)[:2]
    if not moving:
        return question, "No, nothing is moving.", "No."
    said = join([f"the {name(o)} is moving {o['motion']}" for o in moving])
    return question, f"Yes, {said}.", "Yes."


def q_direction(p, f):
    target, o = one_of(p, f)
    question = p.wording(DIRECTION).format(x=words_of(p, target))
    if o is None:
        return question, no_such(target), no_such(target)
    if f["frames"] == 1:
        return question, ONE_PICTURE, CANT_TELL
    if not o["motion"]:
        return question, f"The {name(o)} is not moving.", "Not moving."
    return question, f"The {name(o)} is moving {o['motion']}.", f"{capital(o['motion'])}."


def q_where(p, f):
    target, o = one_of(p, f)
    question = p.wording(WHERE).format(x=words_of(p, target))
    if o is None:
        return question, no_such(target), no_such(target)
    return question, f"The {name(o)} is {place_words(o['place'])}.", f"{capital(place_words(o['place']))}."


def q_read(p, f):
    question = p.wording(READ)
    if not f["text"]:
        return question, "There is no text.", "No text."
    return question, f'The text says "{f["text"]}".', f'"{f["text"]}"'


def q_clock(p, f):
    question = p.wording(CLOCK)
    if not (f["text"] and f["clock"]):
        return question, "There is no clock.", "No clock."
    return question, f"The clock shows {f['text']}.", f"{f['text']}."


def tell_about(o):
    moving = f", moving {o['motion']}" if o["motion"] else ""
    return f"The {name(o)} is {place_words(o['place'])}{moving}."


def q_only(p, f):
    target, o = one_of(p, f, both=0.85)
    if p.chance(0.35):
        said, otherwise = None, NOTHING_NEW
        question = p.wording(ONLY_PLAIN).format(x=words_of(p, target))
    else:
        if p.chance(0.4):
            said, otherwise = (p.of(["nothing", '"..."', "..."])), NOTHING_NEW
        else:
            said = p.of(OTHERWISE) if p.chance(0.6) else p.of(OTHER_NOUNS[0])
            otherwise = capital(said) + "."
            said = f'"{said}"' if p.chance(0.4) else said
        question = p.wording(ONLY).format(x=words_of(p, target), o=said)
    answer = tell_about(o) if o else otherwise
    return question, answer, None


def q_warn(p, f):
    target = p.target(f, present=None if p.chance(0.5) else False, both=0.6)
    if p.chance(0.12):
        question, found = p.wording(WARN).format(a=p.of(["a text", "any text", "a word"])), None
        answer = f'Warning: the text "{f["text"]}".' if f["text"] else NOTHING_NEW
        return question, answer, None
    if target[1] is None and p.chance(0.5):
        words = f"{p.of(['anything', 'something'])} {target[0]}"
    else:
        words = article(words_of(p, target))
    question = p.wording(WARN).format(a=words)
    found = matching(f["here"], target)
    gone = matching(f["gone"], target)
    if found:
        answer = f"Warning: {article(name(found[0]))} {place_words(found[0]['place'])}."
    elif gone:
        answer = f"Warning: {article(name(gone[0]))} was there."
    else:
        answer = NOTHING_NEW
    return question, answer, None


def q_present(p, f):
    target = p.target(f, both=0.75)
    question = p.wording(PRESENT).format(a=article(words_of(p, target)))
    there = bool(matching(f["here"], target))
    words = plain(target)
    answer = f"Yes, there is {article(words)}." if there else f"No, there is no {words}."
    return question, answer, "Yes." if there else "No."


def q_which_shape(p, f):
    for _ in range(20):
        colour = p.target(f, both=1.0)[0]
        found = matching(f["here"], (colour, None))
        if len(found) <= 1:
            break
    else:
        colour, found = "pink", []
    question = p.wording(WHICH_SHAPE).format(c=colour)
    if not found:
        return question, f"There is nothing {colour}.", f"There is nothing {colour}."
    return question, f"It is {article(found[0]['shape'])}.", f"{capital(found[0]['shape'])}."


def q_how_big(p, f):
    target, o = one_of(p, f)
    question = p.wording(HOW_BIG).format(x=words_of(p, target))
    if o is None:
        return question, no_such(target), no_such(target)
    return question, f"The {name(o)} is {o['size']}.", f"{capital(o['size'])}."


def q_changed(p, f):
    question = p.wording(CHANGED)
    if f["kind"] == "snow":
        return question, SNOW, SNOW
    if f["frames"] == 1:
        return question, ONE_PICTURE, CANT_TELL
    said = []
    for o in f["here"]:
        if o["event"] == "appear":
            said.append(f"{article(name(o))} appeared")
        elif o["event"] == "recolour":
            said.append(f"the {o['shape']} changed from {o['before']} to {o['colour']}")
        elif o["motion"]:
            said.append(f"the {name(o)} moved {o['motion']}")
    said += [f"{article(name(o))} disappeared" for o in f["gone"]]
    if not said:
        return question, "Nothing changed.", "Nothing."
    return question, capital(join(said[:2])) + ".", None


def q_daytime(p, f):
    question = p.wording(DAYTIME)
    if f["kind"] != "scene" or f["daytime"] is None:
        return question, CANT_TELL, CANT_TELL
    return question, f"It is {f['daytime']}.", f"{capital(f['daytime'])}."


def q_state(p, f):
    question = p.wording(STATE)
    if f["kind"] != "scene":
        return question, describe(f), None
    changes = any(o["motion"] or o["event"] for o in f["here"]) or f["gone"]
    if f["frames"] > 1 and not changes:
        return question, "The picture does not change: it may be frozen.", None
    return question, "The picture is all right.", None


SYLLABLES = ["ba", "can", "der", "fi", "gor", "hel", "ja", "kin", "lo", "mar", "nest", "on", "pe", "qui", "ras", "sto",
             "ter", "un", "vel", "wood", "xi", "yar", "zo", "suit", "sca", "le", "ing", "er", "ship", "land", "ket", "ble",
             "thi", "ri", "ne", "tro", "phan", "do", "mu", "sel", "gri", "plo", "squ", "irr", "ant", "ew"]  # fmt: skip


def invented(p):
    """A thing that nobody has heard of, or two known ones together: what is unknown is not in the picture."""
    if p.chance(0.3):
        return f"{p.of(OTHER_NOUNS[0])} {p.of(OTHER_NOUNS[0])}"
    return "".join(p.of(SYLLABLES) for _ in range(2 + p.chance(0.4)))


def q_other(p, f):
    if p.chance(0.6):
        noun = p.of(OTHER_NOUNS[0 if p.seen else 1])
        if p.seen and p.chance(0.4):
            noun = invented(p)
        if p.chance(0.15):
            noun = f"{p.of(COLOURS)} {noun}"
        return p.of(OTHER_FORMS).format(n=noun), DEMO, None
    return p.wording(OTHER), DEMO, None


# Skill: (function, share of the questions in training).
SKILLS = {
    "describe": (q_describe, 16),
    "count": (q_count, 9),
    "colour": (q_colour, 6),
    "moving": (q_moving, 8),
    "direction": (q_direction, 6),
    "where": (q_where, 7),
    "read": (q_read, 7),
    "clock": (q_clock, 2),
    "only": (q_only, 9),
    "warn": (q_warn, 10),
    "present": (q_present, 5),
    "shape": (q_which_shape, 4),
    "size": (q_how_big, 4),
    "changed": (q_changed, 7),
    "daytime": (q_daytime, 3),
    "state": (q_state, 4),
    "other": (q_other, 6),
}


def _pattern(wording):
    """What a wording looks like with anything in its places."""
    return re.sub(r"\\{\w\\}", ".+", re.escape(wording.rstrip(".?").lower()))


# Nothing that is drawn for training may look like a wording of the evaluation.
KEPT = re.compile("|".join(
    _pattern(w) for pair in (DESCRIBE, COUNT, COLOUR, MOVING, DIRECTION, WHERE, READ, CLOCK, ONLY, ONLY_PLAIN, WARN,
                             PRESENT, WHICH_SHAPE, HOW_BIG, CHANGED, DAYTIME, STATE, OTHER) for w in pair[1]))  # fmt: skip


def _loosen(p, question):
    """The question as other people would write it: politely, with an aside, with a filler more or a small word less."""
    words = question.split(" ")
    first = words[0].lower()
    if p.chance(0.5) and (first in REQUESTS or first in QUESTIONS):
        bare = question[0].lower() + question[1:]
        if first in REQUESTS and p.chance(0.8):
            return capital(p.of(POLITE).format(v=bare.rstrip(".?")))
        return capital(p.of(ASIDES).format(q=bare))
    if p.chance(0.6):
        words.insert(int(p.rng.integers(len(words))), p.of(FILLERS))
        return capital(" ".join(words))
    small = [i for i, w in enumerate(words) if w.lower() in DROPPABLE]
    if small and len(words) > 3:
        del words[small[int(p.rng.integers(len(small)))]]
    return capital(" ".join(words))


def ask(rng, f, skill=None, seen=True, augment=True):
    """A question about the clip with facts `f`, as (skill, instruction, answer)."""
    p = Picker(rng, seen)
    if skill is None:
        names = list(SKILLS)
        weights = [SKILLS[n][1] * f["interest"].get(n, 1.0) for n in names]
        total = sum(weights)
        roll, skill = rng.random() * total, names[-1]
        for n, w in zip(names, weights, strict=True):
            roll -= w
            if roll < 0:
                skill = n
                break
    question, answer, brief = SKILLS[skill][0](p, f)
    if brief and p.chance(0.15):
        question, answer = p.wording(FEW).format(q=question), brief
    if skill == "describe" and augment and p.chance(0.12):
        question, answer = p.of([PROFILES[n][1] for n in PROFILES]), describe(f)
    if augment and '"' not in question and NOTHING_NEW not in question and p.chance(0.35):
        question = _loosen(p, question)
    if augment:
        if KEPT.fullmatch(question.rstrip(".?").lower()):
            return ask(rng, f, None, seen, augment)
        if p.chance(0.08):
            question = p.of(["Please: ", "Now: ", "OK, ", "Vidette, "]) + question
        dots = NOTHING_NEW in question
        if p.chance(0.06) and not dots:
            question = question.rstrip(".?") + p.of([", please.", " please", " now.", ", thanks."])
        if p.chance(0.12) and not dots:
            question = question.rstrip(".?")
        if p.chance(0.12) and '"' not in question:
            question = question.lower()
    return skill, question, answer
