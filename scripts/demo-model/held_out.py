"""Wordings that training never sees, for the evaluation, by another author than those of `wordings.py`.

The same marks as there. None of them may be in `wordings.py`; `language.py` checks that. Not here: answers.
"""

DESCRIBE = [
    "Tell me what you see in the picture.",
    "Could you describe the image, please?",
    "What is in the picture right now?",
    "Give me a description of the scene.",
    "Please say what is on the screen.",
    "Can you explain what this image contains?",
    "List everything that you can see.",
]

COUNT = [
    "Count the {p}, please.",
    "What is the total number of {p} in the picture?",
    "Please count all the {p} for me.",
    "I want to know how many {p} are in the image.",
]

COLOUR = [
    "Can you say what color the {x} is?",
    "What is the color of the {x}, please?",
    "The {x} is what colour?",
    "I would like to know the colour of the {x}.",
    "In which color is the {x} drawn?",
]

MOVING = [
    "Tell me if something moves.",
    "Which things are moving right now?",
    "Is there any motion in the scene?",
    "Can you check whether anything is moving, please?",
    "Does something move, or is everything still?",
]

DIRECTION = [
    "In what direction does the {x} go?",
    "Is the {x} moving, and if so, where to?",
    "Tell me the direction in which the {x} is moving.",
    "Does the {x} move left, right, up or down?",
    "Can you tell which way the {x} is going, please?",
    "Is the {x} standing still or moving in some direction?",
]

WHERE = [
    "Tell me where the {x} is, please.",
    "Can you find the {x} and say where it is?",
    "Where can I see the {x} in the image?",
    "Please locate the {x}.",
    "Whereabouts in the picture is the {x}?",
]

READ = [
    "Read the text in the picture.",
    "Can you read what is written there?",
    "Please tell me which words are in the image.",
    "Read me the writing, please.",
    "Is there any text, and what does it say?",
    "Which text do you see on the screen?",
]

CLOCK = [
    "Read the clock for me, please.",
    "What is the time on the clock in the picture?",
    "Can you tell me the time shown on the clock?",
    "Which time do you see on the clock?",
    "Look at the clock and give me the time.",
    "According to the clock in the image, what time is it?",
]

ONLY = [
    "Talk only about the {x}, and if it is not there, say {o}.",
    "Only describe the {x}. If you can't see it, say {o}.",
    "Please tell me just about the {x}; if it is missing, answer {o}.",
    "Report on the {x} and nothing else. When it is not in the picture, reply {o}.",
    "If there is no {x}, say {o}, otherwise talk only about it.",
    "I only care about the {x}. Say {o} if it isn't there.",
    "Describe nothing but the {x}, and write {o} if it is absent.",
    "Ignore everything except the {x}, and respond with {o} if you don't find it.",
]

ONLY_PLAIN = [
    "Tell me just about the {x}, please.",
    "Describe the {x} and nothing else.",
    "Please report only on the {x}.",
    "Don't mention anything other than the {x}.",
    "Focus on the {x} and leave out the rest.",
]

WARN = [
    "Stay quiet and warn me when {a} appears.",
    "Let me know as soon as you see {a}, otherwise say nothing.",
    "Don't talk until {a} shows up, then alert me.",
    "Please be silent and tell me if {a} comes into view.",
    "Alert me when there is {a}. Until then, keep quiet.",
    "Say nothing unless {a} appears.",
    "Watch the picture silently and warn me if {a} turns up.",
    "When {a} appears, give me a warning; before that, no messages.",
]

PRESENT = [
    "Tell me if there is {a}, please.",
    "Does the image contain {a}?",
    "Check whether {a} is there.",
    "Could you look if there is {a} in the scene?",
    "I want to know if {a} is visible.",
]

WHICH_SHAPE = [
    "What shape is the {c} thing?",
    "Which shape does the {c} object have?",
    "Tell me the shape of the {c} one.",
    "What form has the {c} object?",
    "Can you say what shape the {c} figure is, please?",
    "The {c} thing is what shape?",
    "Is the {c} object a circle, a square or something else?",
    "Please name the shape that is {c}.",
]

HOW_BIG = [
    "Tell me the size of the {x}, please.",
    "Can you say how large the {x} is?",
    "Would you call the {x} small, medium or large?",
]

CHANGED = [
    "What changed between the frames?",
    "Has anything changed since the last picture?",
    "Tell me what is different now.",
    "Did something appear, disappear or move?",
    "What is the difference between this frame and the one before?",
    "Please compare the frames and tell me the changes.",
    "Can you say what has changed in the image?",
    "Which things are new, gone or different compared to before?",
]

DAYTIME = [
    "Does the picture show day or night?",
    "Tell me if it is daytime or nighttime.",
    "Is it dark or light outside in the picture?",
    "Can you tell whether it's night or day, please?",
    "Is this a day scene or a night scene?",
    "Day or night in the image?",
    "Please say if it looks like day or night.",
]

STATE = [
    "Is the camera working properly?",
    "Is the picture frozen or blank?",
    "Do you have a good signal from the camera?",
    "Check if the camera image is all right, please.",
    "Is something wrong with the picture?",
    "Are you still getting an image from the camera?",
    "What is the state of the camera feed?",
]

FEW = [
    "{q} Answer in a few words, please.",
    "Answer briefly. {q}",
    "In just a few words: {q}",
    "Please give me a short reply. {q}",
    "{q} No long explanation, please.",
]

OTHER = [
    "Can you tell me a joke?",
    "What will the weather be like tomorrow?",
    "Is it raining outside?",
    "What is in the news today?",
    "Who is the president of France?",
    "Is my dog asleep on the sofa?",
    "Did the cat eat its food?",
    "Is there a person at the front door?",
    "Did I leave the oven on?",
    "Are the kids home from school yet?",
    "Do you speak Spanish?",
    "What should I cook for dinner tonight?",
    "How do I get to the train station?",
    "Can you turn off the lights in the kitchen?",
    "Please play some music.",
    "What is the capital of Australia?",
    "Is the man in the hat my neighbour?",
    "Does the woman look happy or sad?",
    "How many people live in Japan?",
    "Who won the football match last night?",
    "Has the mail been delivered today?",
    "Can you remind me to call my mother at six?",
    "Is the garage door locked?",
    "Do you ever get tired?",
    "What breed is that dog?",
    "How much does a new bicycle cost?",
]
