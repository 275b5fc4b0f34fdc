"""How people may put each request, for training: plain wordings and combinations of their parts.

`{x}` is a named thing ("red circle"), `{a}` the same with its article, `{p}` its plural, `{c}` a colour, `{o}` what to
say otherwise, `{q}` a whole question. Others, each written out, stand in `more_wordings/`; small mistakes there, as people
make them, are on purpose. The wordings that training never sees are in `held_out.py`; none of them may be here. Not here:
what the answers are (`language.py`).
"""

from itertools import product

ASK = ["Tell me", "Say", "Can you tell me", "Could you tell me", "Please tell me", "I want to know", "Do you know",
       "I'd like to know", "Let me know", "Explain"]  # fmt: skip
PICTURE = ["in the picture", "in the image", "on the screen", "in the video", "in the scene", "here", "there",
           "in front of the camera", "in view", "right now"]  # fmt: skip


def mix(*parts):
    """All combinations, each part a string or a list of strings, joined by spaces; empty parts vanish."""
    lists = [[p] if isinstance(p, str) else p for p in parts]
    out = []
    for words in product(*lists):
        text = " ".join(w for w in words if w)
        for mark in ("?", ".", ",", ":", ";"):
            text = text.replace(" " + mark, mark)
        out.append(text[0].upper() + text[1:])
    return out


def asked(clause):
    """An indirect question after each way to ask; those that are questions themselves end as such."""
    out = []
    for start in ASK:
        mark = "?" if start.startswith(("Can", "Could", "Do")) else "."
        out += [f"{start} {c}{mark}" for c in clause]
    return out


DESCRIBE = [
    "Tell me what you see.", "What do you see?", "Describe the scene.", "Describe the picture.", "What is there?",
    "Describe what you see.", "Say what you see.", "What is in the picture?", "What's in the image?",
    "Describe the scene for me.", "What can you see?", "Comment on what you see.", "Tell me what is there.",
    "Describe this.", "What is on the screen?", "What is happening?", "Tell me everything you see.",
    "Give me a description.", "Explain what you see.", "Describe the video.", "What does the camera show?",
    "Tell me what is in the picture.", "What does the picture show?", "Describe the image for me.",
    "Say what is there.", "What is going on?", "What's going on?", "What's there?", "What do we have here?",
    "Look and tell me what you see.", "List what you see.", "List everything.", "Name the things you see.",
    "What are you looking at?", "What are you seeing?", "What things are there?", "Which objects do you see?",
    "Summarise the picture.", "Summarize the scene.", "Give an overview.", "Report what you see.", "Report.",
    "Describe.", "Describe it.", "Describe everything.", "Talk about the picture.", "Show me what you see.",
    "What is visible?", "Which things are visible?", "What appears on the screen?", "Comment.",
    "Tell me about the picture.", "Tell me about the scene.", "What is this?", "What does it look like?",
    "How does the scene look?", "Give me the details.", "Paint the scene in words.", "Walk me through the scene.",
    *asked(["what you see", "what is there", "what the picture shows", "what is happening", "what you can see"]),
    *mix(["What is", "What's", "What can be seen", "What do you see", "Describe what is", "List what is"], PICTURE, "."),
]  # fmt: skip
COUNT = [
    "How many {p} are there?", "Count the {p}.", "How many {p} do you see?", "How many {p}?", "Count {p}.",
    "Tell me how many {p} there are.", "What is the number of {p}?", "How many {p} can you see?", "Number of {p}?",
    "Count all {p}.", "Say how many {p} you see.", "How many {p} are in the picture?", "Count the {p} for me.",
    "Tell me the number of {p}.", "How many {p} are on the screen?", "Count up the {p}.", "What's the count of {p}?",
    "{p}: how many?", "The number of {p}, please.", "Give me the number of {p}.", "I need a count of the {p}.",
    "How many {p} do we have?", "How many {p} have you got?", "Are there any {p}, and how many?",
    "What number of {p} is there?", "How many of the things are {p}?", "Keep count of the {p}.",
    *asked(["how many {p} there are", "how many {p} you see", "the number of {p}"]),
    *mix(["How many {p} are", "Count the {p}", "How many {p} do you see", "Number of {p}"], PICTURE, "?"),
]  # fmt: skip
COLOUR = [
    "What colour is the {x}?", "What color is the {x}?", "Which colour has the {x}?", "Tell me the colour of the {x}.",
    "What is the colour of the {x}?", "Colour of the {x}?", "Say which colour the {x} has.",
    "Which color is the {x}?", "Name the colour of the {x}.", "The {x}, what colour is it?",
    "What's the color of the {x}?", "Which colour does the {x} have?", "Tell me which colour the {x} is.",
    "The {x} has which colour?", "What colour does the {x} have?", "Give me the color of the {x}.",
    "How is the {x} coloured?", "In what colour is the {x}?", "What's the {x}'s colour?", "Color of the {x}?",
    "{x}: which colour?", "I need the colour of the {x}.", "What colour do you see on the {x}?",
    *asked(["what colour the {x} is", "which color the {x} has", "the colour of the {x}", "what the {x}'s colour is"]),
]  # fmt: skip
MOVING = [
    "Is anything moving?", "Does anything move?", "What is moving?", "Is something moving?", "What moves?",
    "Tell me what moves.", "Do you see any movement?", "Is there any motion?", "Which way do things move?",
    "Tell me if anything moves.", "Say what is moving and which way.", "Any movement?", "Is there any movement?",
    "Do you see anything moving?", "Tell me what is moving.", "Does something move?", "Any motion?",
    "Is there motion?", "Is there something that moves?", "Which things move?", "Which object is moving?",
    "Can you see anything move?", "Has anything moved?", "Are things moving?",
    "What is in motion?", "Do any shapes move?", "Are any objects moving?", "Movement?", "Detect motion.",
    "Report any movement.", "Is there anything in motion?", "Does any object move?", "Do you notice any movement?",
    *asked(["if anything moves", "what is moving", "whether something is moving", "what moves and where to"]),
    *mix(["Is anything moving", "Does anything move", "What is moving", "Any movement"], PICTURE, "?"),
]  # fmt: skip
DIRECTION = [
    "Which way does the {x} move?", "Is the {x} moving?", "Where is the {x} going?", "How does the {x} move?",
    "Does the {x} move?", "Which direction does the {x} move?", "Tell me which way the {x} moves.",
    "In which direction is the {x} moving?", "Which way is the {x} going?", "Which way is the {x} moving?",
    "In which direction does the {x} move?", "Tell me where the {x} is going.", "Where does the {x} go?",
    "Where is the {x} heading?", "Which way is the {x} heading?", "What direction is the {x} going?",
    "What way does the {x} go?", "Is the {x} in motion?", "Direction of the {x}?", "To which side does the {x} move?",
    "How is the {x} moving?", "Where is the {x} moving to?", "Does the {x} go left or right?",
    "Is the {x} moving up or down?", "Follow the {x} and tell me where it goes.", "Track the {x}.",
    "The {x}: which way does it move?", "Towards which side is the {x} moving?",
    *asked(["which way the {x} moves", "where the {x} is going", "if the {x} is moving", "how the {x} moves",
            "in which direction the {x} goes"]),
]  # fmt: skip
WHERE = [
    "Where is the {x}?", "Where do you see the {x}?", "Tell me where the {x} is.", "Find the {x}.",
    "In which part of the picture is the {x}?", "Where's the {x}?", "Locate the {x}.", "Position of the {x}?",
    "Where can I find the {x}?", "On which side is the {x}?", "Say where the {x} is.",
    "Where is the {x} in the picture?", "Tell me the position of the {x}.", "Where did you find the {x}?",
    "Where exactly is the {x}?", "At which place is the {x}?", "Point me to the {x}.", "Show me where the {x} is.",
    "What is the position of the {x}?", "What's the location of the {x}?", "Which side is the {x} on?",
    "Where should I look for the {x}?", "Where does the {x} sit?", "In what corner is the {x}?",
    "Look for the {x} and say where it is.", "The {x}, where is it?", "Is the {x} on the left or on the right?",
    *asked(["where the {x} is", "where to find the {x}", "the place of the {x}", "on which side the {x} is"]),
    *mix(["Where is the {x}", "Where do you see the {x}", "Find the {x}"], PICTURE, "?"),
]  # fmt: skip
READ = [
    "Read the text.", "What does the text say?", "What is written there?", "Read what is written.",
    "Which text do you see?", "Tell me what the text says.", "Can you read the text?", "What letters do you see?",
    "Read it to me.", "What text is there?", "Is there any text?", "Spell the text.", "Read the text to me.",
    "What is the text?", "Tell me which text you see.", "What text do you see?", "What is written?", "What's written?",
    "What does it say?", "Read it.", "Read the writing.", "Read the letters.", "Read the letters and numbers.",
    "Read any text you see.", "Read aloud what is written.", "What is written on the screen?", "Is anything written?",
    "What words are there?", "Which letters are there?", "What characters do you see?", "Spell out the letters.",
    "Text?", "What's the text?", "Do you see any text?", "Is there any writing?", "What does the writing say?",
    "Which characters can you read?", "Can you read anything?", "Transcribe the text.", "Read the word.",
    "What does the sign say?", "Read the sign.", "Read out the text.", "Please read.",
    *asked(["what is written", "what the text says", "which text is there", "which letters you see"]),
    *mix(["What is written", "Read the text", "What text is", "Which letters are"], PICTURE, "?"),
]  # fmt: skip
CLOCK = [
    "What time is it?", "What does the clock show?", "Read the clock.", "Tell me the time.", "What's the time?",
    "Which time does the clock show?", "What does the clock say?", "Say the time.",
    "What time does the clock show?", "Tell me the time on the clock.", "Time?", "What is the time?",
    "Do you see a clock?", "Is there a clock?", "How late is it?", "What time do you read?", "Read the time.",
    "What's on the clock?", "What is the time on the clock?", "Which time is it?", "Look at the clock.",
    "What time is on the screen?", "Give me the time.", "What hour is it?", "Current time?",
    *asked(["what time it is", "the time", "what the clock shows", "what the clock says"]),
]  # fmt: skip
_ONLY = ["Only tell me about the {x}", "Tell me only about the {x}", "Talk only about the {x}", "Only report the {x}",
         "Report only the {x}", "Tell me what the {x} does", "Only tell me what the {x} does",
         "I only care about the {x}", "I only want to hear about the {x}", "Only mention the {x}",
         "Comment only on the {x}", "Just tell me about the {x}", "Focus on the {x}", "Watch only the {x}",
         "Only watch the {x}", "Speak only about the {x}", "Tell me about the {x} only", "Look only at the {x}",
         "Only talk about the {x}", "Only tell me where the {x} is", "Concentrate on the {x}", "Describe only the {x}",
         "Nothing but the {x}", "Ignore everything except the {x}", "Keep your eyes on the {x}",
         "Limit yourself to the {x}", "I am only interested in the {x}", "Follow just the {x}"]  # fmt: skip
ONLY = mix(
    _ONLY,
    [", otherwise say {o}.", "; otherwise say {o}.", ". Otherwise say {o}.", ", otherwise answer {o}.",
     ", else say {o}.", ". If it is not there say {o}.", ", or say {o}.", ". If there is none, say {o}.",
     ", and if you don't see it say {o}.", ". When it is absent, answer {o}.", ". If not, say {o}.",
     ", otherwise just {o}.", "; if it isn't there, write {o}.", ". Say {o} when it is missing."],
)  # fmt: skip
ONLY_PLAIN = [w + "." for w in _ONLY] + ["Only the {x}, please.", "Just the {x}.", "The {x} only.",
                                         "Please only the {x}."]  # fmt: skip
WARN = [
    *mix(["Warn me", "Alert me", "Notify me", "Give me a warning", "Call me", "Speak up", "Raise the alarm",
          "Sound the alarm", "Shout", "Give a sign", "Send an alert", "Wake me"],
         ["when", "if", "as soon as", "once", "in case", "only when", "only if", "whenever"],
         ["{a} appears.", "{a} shows up.", "{a} comes.", "you see {a}.", "there is {a}.", "{a} turns up.",
          "{a} comes into view.", "{a} is there.", "{a} can be seen.", "you notice {a}.", "{a} enters the picture.",
          "{a} pops up."]),
    # "Tell me if there is a star" asks for an answer now; what appears or comes is waited for.
    *mix(["Tell me", "Let me know", "Inform me", "Say something", "Report", "Say so"],
         ["when", "as soon as", "once", "only when", "whenever"],
         ["{a} appears.", "{a} shows up.", "{a} comes.", "you see {a}.", "there is {a}.", "{a} turns up.",
          "{a} comes into view.", "{a} is there.", "{a} can be seen.", "you notice {a}.", "{a} enters the picture.",
          "{a} pops up."]),
    *mix(["Tell me", "Let me know", "Inform me", "Say something", "Report", "Say so"], ["if", "in case", "only if"],
         ["{a} appears.", "{a} shows up.", "{a} comes.", "{a} turns up.", "{a} comes into view.",
          "{a} enters the picture.", "{a} pops up."]),
    *mix(["Watch for", "Look out for", "Wait for", "Watch out for", "Keep watch for", "Keep an eye out for",
          "Be on guard for", "Stand guard for", "Keep looking for"],
         ["{a}.", "{a} and warn me.", "{a} and tell me.", "{a} and let me know.", "{a}, then warn me.",
          "{a} and alert me when it comes."]),
    *mix(["Be quiet until", "Stay quiet until", "Keep quiet until", "Say nothing until", "Stay silent until",
          "Don't speak until", "Hush until"],
         ["{a} appears.", "you see {a}.", "{a} shows up.", "there is {a}.", "{a} comes."]),
    *mix(["When", "If", "As soon as", "Once"], ["{a} appears,", "you see {a},", "{a} shows up,", "{a} comes,"],
         ["warn me.", "tell me.", "let me know.", "alert me."]),
]  # fmt: skip
PRESENT = [
    "Is there {a}?", "Do you see {a}?", "Can you see {a}?", "Is {a} in the picture?", "Is {a} there?",
    "Tell me if there is {a}.", "Do you see {a} anywhere?", "Can you see {a} anywhere?", "Tell me if you see {a}.",
    "Is {a} visible?", "Can you find {a}?", "Do you find {a}?", "Is {a} on the screen?", "Does the picture show {a}?",
    "Have you got {a} there?", "Is there {a} anywhere?", "Could there be {a}?", "Check if there is {a}.",
    "Is {a} to be seen?", "Do we have {a}?", "Is {a} present?", "Does the scene contain {a}?", "See {a}?",
    "Look whether there is {a}.", "Can {a} be seen?", "Did you spot {a}?", "Can you spot {a}?", "Is it true there is {a}?",
    *asked(["if there is {a}", "whether you see {a}", "if {a} is there", "whether {a} is visible"]),
    *mix(["Is there {a}", "Do you see {a}", "Can you see {a}"], PICTURE, "?"),
]  # fmt: skip
WHICH_SHAPE = [
    "What is the {c} thing?", "What shape is {c}?", "Which shape is {c}?", "What is {c}?", "Which object is {c}?",
    "What shape has the {c} object?", "Tell me which shape is {c}.", "Which thing is {c}?",
    "What is the {c} object?", "What's {c}?", "What's the {c} one?", "What form has the {c} thing?", "Name the {c} shape.",
    "The {c} thing, what is it?", "What kind of shape is {c}?", "Which form is {c}?", "What do you see in {c}?",
    "The {c} one is what?", "What is coloured {c}?", "What shape does the {c} thing have?", "Identify the {c} thing.",
    "What kind of thing is {c}?", "Which figure is {c}?", "What sort of object is the {c} one?",
    *asked(["what the {c} thing is", "which shape is {c}", "what is {c}", "what shape the {c} object has"]),
]  # fmt: skip
HOW_BIG = [
    "How big is the {x}?", "What size is the {x}?", "How large is the {x}?", "Is the {x} big or small?",
    "Tell me the size of the {x}.", "Size of the {x}?", "What is the size of the {x}?", "Tell me how big the {x} is.",
    "Is the {x} large?", "Is the {x} small?", "What size has the {x}?", "Which size does the {x} have?",
    "How small is the {x}?", "Is the {x} small, medium or large?", "Is it a big {x}?", "What's the {x}'s size?",
    "The {x}: how big?", "Give me the size of the {x}.", "Is the {x} large or small?", "Estimate the size of the {x}.",
    *asked(["how big the {x} is", "the size of the {x}", "what size the {x} has", "if the {x} is large or small"]),
]  # fmt: skip
CHANGED = [
    "What changed?", "Did anything change?", "What has changed?", "Tell me what changed.", "What happened?",
    "Did anything appear or disappear?", "What is new?", "Tell me what changes.", "Has anything changed?",
    "What is different now?", "Tell me what has changed.", "Did something change?", "What's new?", "Any change?",
    "Any changes?", "Is anything different?", "What's different?", "What is different?", "Is there any change?",
    "Is there any difference?", "Did something happen?", "What just happened?", "Did anything happen?",
    "Has something changed?", "What has happened?", "Which things changed?", "Report changes.", "Report any change.",
    "What changes do you see?", "Do you see any change?", "Do you notice a change?", "Is something new?",
    "Compare the frames.", "What is different from before?", "Has anything appeared?", "Did something disappear?",
    "Is anything new or gone?", "What came and what went?", "Spot the difference.", "Say what changed.",
    *asked(["what changed", "what has changed", "if anything changed", "what is different", "what is new",
            "what happened"]),
    *mix(["What changed", "What has changed", "Did anything change", "What is new"], PICTURE, "?"),
]  # fmt: skip
DAYTIME = [
    "Is it day or night?", "Is it day?", "Is it night?", "Day or night?", "Is it dark outside?",
    "Tell me if it is day or night.", "Is it night or day?", "Do you see day or night?", "Is it day or is it night?",
    "Is it daytime?", "Is it night-time?", "Is it light outside?", "Is the sun up?", "Is it bright or dark outside?",
    "Is it still day?", "Is it already night?", "Is this by day or by night?", "What time of day is it?",
    "Is it dark?", "Has night come?", "Was this taken by day or by night?",
    *asked(["if it is day or night", "whether it is night", "if it is day", "whether it is day or night"]),
]  # fmt: skip
STATE = [
    "Is the picture all right?", "Is the camera working?", "Is the picture frozen?", "Is there a signal?",
    "Is the video frozen?", "How is the picture?", "Is the picture blank?", "Check the picture.",
    "Is anything wrong with the picture?", "Is the camera all right?", "Is the video all right?",
    "Is anything wrong with the camera?", "Check the camera.", "Check the video.", "Check the signal.",
    "Is the camera OK?", "Is the picture OK?", "Is the video OK?", "Is the image OK?", "Does the camera work?",
    "Does the video work?", "Is the feed OK?", "Is the feed frozen?", "Is the stream working?", "Check the stream.",
    "Do we have a signal?", "Is there a picture?", "Do you get a picture?", "Is something wrong with the video?",
    "Is the image frozen?", "Is the screen blank?", "Is the camera broken?", "Is the signal lost?",
    "Did the picture freeze?", "Has the video stopped?", "Are you getting a signal?", "Test the camera.",
    "Camera status?", "Status of the picture?", "Is the image good?", "Is the connection OK?",
    *asked(["if the camera works", "if the picture is all right", "whether the video is frozen", "how the picture is"]),
]  # fmt: skip
FEW = [
    "In few words: {q}", "{q} In few words.", "{q} Be brief.", "{q} Short answer.", "Briefly: {q}",
    "{q} Answer in few words.", "{q} Use few words.", "{q} Keep it short.", "In one or two words: {q}",
    "{q} Be brief, please.", "{q} Give a short answer.", "In short: {q}", "{q} Short, please.", "{q} Only a few words.",
    "{q} As short as possible.", "{q} One or two words.", "{q} Make it short.", "{q} Short reply.", "Short answer: {q}",
    "Be brief: {q}", "{q} Answer briefly.", "{q} Answer shortly.", "{q} In a word.", "Keep it short: {q}",
    "{q} No long answer.", "{q} Few words only.", "{q} Brief answer.", "With few words: {q}", "{q} Say it briefly.",
    "{q} A short answer is enough.", "{q} Just a word or two.", "{q} Reply in few words.", "Answer briefly: {q}",
]  # fmt: skip
# Nothing that a drawn scene could answer.
OTHER = [
    "Who are you?", "What are you?", "What is your name?", "Tell me a joke.", "What is the weather like?",
    "Will it rain tomorrow?", "Who is the president?", "What is the capital of France?", "Are you a real model?",
    "How old are you?", "Write a poem.", "Sing a song.", "What is two plus two?", "Translate this into German.",
    "Who won the game?", "What is the meaning of life?", "Is anybody at home?", "Is someone at the door?",
    "What are the people doing?", "Is anyone smiling?", "How many people are there?", "What is she wearing?",
    "Recommend a film.", "How do I cook pasta?", "What day is today?", "Where am I?", "Which city is this?",
    "What is the news?", "Help me with my homework.", "Write some code.", "Do you like music?", "Who made you?",
    "Can you hear me?", "Is the baby asleep?", "What does he say?", "Tell me about history.", "How far is the moon?",
    "Explain gravity.", "Which brand is it?", "Is it safe to cross the road?", "Hello.", "Good morning.",
    "Thank you.", "How are you?", "What can you do?", "Is it expensive?", "Play some music.", "Call the police.",
    "Turn on the light.", "Open the door.", "Order a pizza.", "What should I do?", "Do you love me?",
    "What is the temperature?", "Who is there?", "What is he doing?", "Are they fighting?", "Is the stove on?",
    "Is the road wet?", "What kind of car is this?", "Is the shop open?", "What happens in the street?",
    "Is my parcel there?", "Does the dog bark?", "How tall is he?", "What sport is this?", "Who has the ball?",
    "What is your favourite food?", "Who wrote this book?", "Is anybody in the kitchen?", "Tell me a story.",
    "What is the man wearing?", "Is it going to snow tomorrow?", "How do planes fly?", "Are the children playing?",
    "Are you a robot?", "Are you human?", "Where do you live?", "What do you think?", "Do you sleep?",
    "Can you help me?", "What is love?", "Tell me something.", "Tell me the news.", "What's up?", "Who is that?",
    "Who is at home?", "Is mum home?", "Has the postman been here?", "Did somebody ring?", "Is there anybody?",
    "Is anyone there?", "How is the traffic?", "Is it raining?", "Is it cold?", "Is it sunny today?",
    "What will the weather be?", "Should I take an umbrella?", "What year is it?", "Which month is it?",
    "When is Christmas?", "How much does it cost?", "What is your job?", "Can you sing?", "Can you dance?",
    "Give me a recipe.", "What shall I eat?", "Who is the best player?", "Who scored?", "What is the score?",
    "Which team is winning?", "Is he wearing a helmet?", "Is she happy?", "Do they look sad?", "Is the man running?",
    "What does the woman hold?", "Is the cat hungry?", "Is the plant dry?", "Did the cat eat?", "Is the car parked?",
    "Whose car is it?", "Is the light on?", "Is the window open?", "Lock the door.", "Call my mother.",
    "Send a message.", "Set a timer.", "Wake me at seven.", "Search the web.", "What is the answer?",
    "Calculate five times six.", "How many days has a year?", "What is a dog?", "What is a computer?",
    "How does a car work?", "Why is the sky blue?", "Where is Berlin?", "Who was Einstein?", "Tell me a secret.",
    "Do you know me?", "Do you remember me?", "I am bored.", "I am hungry.", "Nice to meet you.", "Bye.",
    "Good night.", "Yes.", "No.", "Why?", "Really?", "Stop.", "Go away.", "Be nice.", "Speak German.",
    "Say it in French.", "What language is this?", "Is it art?", "Is the painting old?", "What breed is it?",
    "What animal is that?", "Which bird is it?", "What kind of plant is this?", "Is the food ready?",
    "Is the soup boiling?", "Is the water deep?", "How many fingers do I hold up?", "What am I wearing?",
    "How do I look?", "Am I smiling?", "Is my hair fine?", "Guess my age.", "What do you feel?",
    "Describe the people.", "Describe the street.", "Describe the room.", "Tell me about the weather.",
    "Tell me about yourself.", "Comment on the football match.", "Watch my house.", "Guard the house.",
    "Is the house safe?", "Is there a stranger?", "Tell me who is coming.", "Count the people.", "Count the cars.",
    "How many cars passed?", "Is the bus late?", "When does the train come?",
]  # fmt: skip
