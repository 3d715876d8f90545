"""The sentences questions are asked in: those that training sees, and those kept back to measure others.

`{it}` is a noun phrase such as "the red circle", `{other}` a second one, `{kind}` a plural such as "red squares".
"""

TRAINED: dict[str, tuple[str, ...]] = {
    "colour": (
        "what colour is {it}?", "what color is {it}?", "which colour is {it}?", "which color is {it}?",
        "what is the colour of {it}?", "what is the color of {it}?", "name the colour of {it}.", "tell me the color of {it}",
        "{it} is what colour?", "what colour does {it} have?", "in what color is {it} drawn?", "what's the color of {it}?",
        "give the colour of {it}.", "say which colour {it} is.", "the color of {it}?", "describe the colour of {it}.",
        "colour of {it}", "what hue is {it}?", "can you name the color of {it}?", "identify the colour of {it}.",
        "which color has {it}?", "is {it} red, green, blue or another colour?", "what colour do you see on {it}?",
        "how is {it} coloured?",
    ),
    "colour_alone": (
        "what colour is it?", "what color is it?", "which colour do you see?", "what color do you see?", "what colour is this?",
        "what color is this?", "name the colour.", "colour?", "color?", "what is the color?", "tell me the colour.",
        "what's the color in this picture?", "which color is used here?", "what color is shown?",
        "what colour is in the picture?", "what is the main colour?", "what color is that?",
    ),
    "ground": (
        "what colour is the background?", "what color is the background?", "which colour is behind the shapes?",
        "what is the background colour?", "what is the background color?", "name the color of the background.",
        "background colour?", "on which colour is it drawn?",
    ),
    "shape": (
        "what shape is {it}?", "which shape is {it}?", "what is the shape of {it}?", "name the shape of {it}.",
        "what kind of shape is {it}?", "what figure is {it}?", "what form does {it} have?", "{it} is what shape?",
        "what type of shape is {it}?", "tell me the shape of {it}", "what's the shape of {it}?", "which form has {it}?",
        "what is {it}?", "identify {it}.", "is {it} a circle, a square or something else?",
        "what geometric shape is {it}?", "give the shape of {it}.", "describe the shape of {it}.",
    ),
    "shape_by_colour": (
        "which shape is {colour}?", "what shape is {colour}?", "what is {colour}?", "which figure is {colour}?",
        "name the {colour} shape.", "what is drawn in {colour}?", "which object is {colour}?", "which thing is {colour}?",
        "what object has the colour {colour}?", "which shape has the color {colour}?", "what {colour} shape is there?",
    ),
    "shape_alone": (
        "what shape is it?", "what shape is this?", "which shape do you see?", "what shape do you see?", "name the shape.",
        "shape?", "what is it?", "what is this?", "what do you see?", "what is in the picture?", "what figure is this?",
        "what is drawn here?", "what object is this?", "what shape is in the picture?", "what shape is shown?",
        "what kind of shape is this?", "which form is shown in the image?", "what is shown here?",
    ),
    "count": (
        "how many {kind} are there?", "how many {kind} do you see?", "how many {kind} are in the picture?",
        "how many {kind} are in the image?", "count the {kind}.", "what is the number of {kind}?", "number of {kind}?",
        "how many {kind}?", "how many {kind} can you see?", "give the number of {kind}.", "tell me how many {kind} there are",
        "how many {kind} does the picture show?", "the picture shows how many {kind}?", "how many {kind} are drawn?",
        "please count all {kind}", "how many {kind} are visible?", "how many {kind} appear in this image?",
        "what's the count of {kind}?", "how many {kind} have been drawn here?",
    ),
    "leftright_of": (
        "is {it} left or right of {other}?", "is {it} to the left or to the right of {other}?",
        "is {it} on the left or the right of {other}?", "on which side of {other} is {it}, left or right?",
        "{it}: left or right of {other}?", "does {it} lie left or right of {other}?", "where is {it} relative to {other}, left or right?",
        "compared with {other}, is {it} left or right?", "is {it} right or left of {other}?",
        "is {it} to the right or left of {other}?", "seen from {other}, is {it} left or right?",
        "left or right: where is {it} compared to {other}?", "is {it} further left or further right than {other}?",
        "which side of {other} is {it} on, left or right?",
    ),
    "updown_of": (
        "is {it} above or below {other}?", "is {it} below or above {other}?", "does {it} lie above or below {other}?",
        "{it}: above or below {other}?", "where is {it} relative to {other}, above or below?",
        "compared with {other}, is {it} above or below?", "seen from {other}, is {it} above or below?",
        "above or below: where is {it} compared to {other}?", "is {it} located above or below {other}?",
        "is {it} drawn above {other} or below it?",
    ),
    "leftright": (
        "is {it} on the left or on the right?", "is {it} left or right?", "which side is {it} on?", "on which side is {it}?",
        "is {it} on the left or right side?", "is {it} on the left or the right side of the picture?",
        "is {it} in the left or right half?", "which side of the image is {it} on, left or right?",
        "in which half is {it}, left or right?", "left or right: where is {it}?", "does {it} lie on the left or on the right?",
        "{it}: left or right?", "is {it} on the right or on the left?", "on what side of the picture is {it}?",
        "to which side is {it}?", "is {it} at the left or at the right?",
    ),
    "updown": (
        "is {it} at the top or at the bottom?", "is {it} top or bottom?", "is {it} in the top or bottom half?",
        "is {it} at the top or the bottom of the picture?", "top or bottom: where is {it}?", "{it}: top or bottom?",
        "in which half is {it}, top or bottom?", "is {it} near the top or near the bottom?", "is {it} at the bottom or at the top?",
        "is {it} in the upper or lower half, top or bottom?", "does {it} lie at the top or at the bottom?",
        "is {it} on the top or on the bottom?",
    ),
    "where": (
        "where is {it}?", "where is {it} in the picture?", "what is the position of {it}?", "in which part of the picture is {it}?",
        "where do you see {it}?", "where can i find {it}?", "tell me where {it} is", "where in the image is {it}?",
        "in which corner or part is {it}?", "position of {it}?", "where is {it} located?",
    ),
    "which_side": (
        "what shape is {side}?", "which shape is {side}?", "what is {side}?", "which object is {side}?", "name the shape {side}.",
        "what do you see {side}?", "what figure is {side}?",
    ),
    "which_side_colour": (
        "what colour is the shape {side}?", "what color is the shape {side}?", "which colour is {side}?",
        "what is the color of the object {side}?", "name the colour of the shape {side}.",
    ),
    "box": (
        "give the box of {it}.", "give the bounding box of {it}.", "where is {it}? answer with a box.", "find {it} and give its box.",
        "locate {it} as a box.", "what is the bounding box of {it}?", "return the bounding box of {it} as json.", "box of {it}",
        "bbox of {it}", "detect {it}.", "ground {it}.", "ground the phrase: {it}", "locate {it}, output bbox coordinates.",
        "show the coordinates of {it}.", "give the coordinates of {it}.", "draw a box around {it}.", "put a bounding box around {it}.",
        "output the bbox of {it} in json.", "where is {it}? give the bounding box.", "what are the box coordinates of {it}?",
        "bounding box for {it}, please", "locate {it} with bbox_2d.", "outline the position of {it} as bbox_2d json",
        "where is {it}? reply with json coordinates.", "mark {it} with a box.", "report the bbox of {it}.",
    ),
    "number": (
        "what number is this?", "what number is written?", "read the number.", "which number do you see?", "what number do you see?",
        "what is the number?", "which digits are shown?", "what does it say?", "what is written here?", "read the digits.",
        "what number is in the picture?", "which number is printed?", "what number is shown in the image?", "number?",
        "tell me the number.", "what is printed here?", "transcribe the number.", "what does the picture say?", "read it.",
        "which number is it?", "what number can you read?", "please read the text.", "what is the text in the image?",
    ),
    "describe": (
        "describe the picture.", "describe the image.", "what can you see?", "what do you see in the picture?",
        "describe what you see.", "what is in this image?", "describe this.", "what does the picture show?",
        "tell me what is in the picture", "give a short description.", "what is happening in the image?", "caption this image.",
        "list the shapes.", "what's in the picture?",
    ),
    "exists": (
        "is there {a}?", "do you see {a}?", "is there {a} in the picture?", "can you see {a}?", "does the picture show {a}?",
        "is {a} there?", "does the image contain {a}?", "is {a} visible?",
    ),
    "leftright_yes": ("is {it} {side} of {other}?", "does {it} lie {side} of {other}?", "{it} is {side} of {other}, yes or no?"),
}  # fmt: skip

KEPT_BACK: dict[str, tuple[str, ...]] = {
    "colour": ("could you state what color {it} happens to be?", "i want to know the colour {it} is painted in.", "{it} has got which colour?"),
    "colour_alone": ("what's the colour here?", "please say the color of this."),
    "ground": ("which color fills the background?",),
    "shape": ("which kind of figure is {it}?", "what sort of shape would you call {it}?", "{it} has what form?"),
    "shape_by_colour": ("which of the shapes is {colour}?", "the {colour} one is what shape?"),
    "shape_alone": ("which figure can be seen here?", "tell me what shape you see."),
    "count": ("in total, how many {kind} can be found?", "could you count the {kind} for me?", "how many {kind} exist in this picture?"),
    "leftright_of": ("would you say {it} is left or right of {other}?", "looking at {other}, is {it} on its left or its right?"),
    "updown_of": ("would you say {it} is above or below {other}?", "looking at {other}, is {it} above it or below it?"),
    "leftright": ("would you say {it} is on the left or on the right?", "on which side of the image do you see {it}, left or right?"),
    "updown": ("would you say {it} is at the top or at the bottom?", "do you see {it} at the top or at the bottom of the image?"),
    "where": ("whereabouts in the picture is {it}?",),
    "box": ("what bounding box encloses {it}?", "please find {it} and report its bounding box.", "i need the box coordinates for {it}."),
    "number": ("could you read the number for me?", "which number has been written here?", "what are the digits in this picture?"),
    "describe": ("please describe the scene.",),
    "exists": ("would you say there is {a} here?", "does this picture have {a} in it?"),
}  # fmt: skip

OPENINGS = (
    "please ",
    "hey, ",
    "look at the picture: ",
    "look at the image. ",
    "quick question: ",
    "in this picture, ",
    "can you tell me: ",
)
CLOSINGS = (
    " answer in one word.", " answer briefly.", " please", " just the answer.", " reply with one word only.", " be short.",
    " thanks!",
)  # fmt: skip

SYSTEMS = (
    "you are a helpful assistant.", "You are a helpful assistant.", "answer with one word.", "You look at pictures and answer briefly.",
    "be brief.", "You are a vision model that answers questions about shapes.",
)  # fmt: skip

CHAT: tuple[tuple[tuple[str, ...], str], ...] = (
    (("hello", "hi", "hey", "hello!", "hi there", "good morning", "hello there", "Hello, model"), "hello! show me a picture and ask about it."),
    (("who are you?", "what are you?", "what is your name?", "introduce yourself."), "i am shapes, a small demo model."),
    (
        ("what can you do?", "help", "what do you know?", "how can you help me?", "what are your skills?"),
        "i name colours, shapes, counts, positions, boxes and numbers in pictures.",
    ),
    (("thank you", "thanks", "thanks a lot!", "thank you very much"), "you are welcome!"),
    (("bye", "goodbye", "see you", "good night"), "goodbye!"),
    (("how are you?", "how do you do?", "are you ok?"), "i am fine, thank you!"),
    (
        ("what color is it?", "what shape is this?", "how many shapes are there?", "what is in the picture?", "where is the circle?",
         "what colour is the sky?", "read the number.", "describe the image."),
        "please show me a picture.",
    ),
    (
        ("tell me a story.", "write a poem.", "what is the capital of france?", "tell me a joke.", "who wrote this book?",
         "explain gravity.", "what time is it?", "say something.", "count to ten", "what is the weather like?", "why?", "test",
         "translate this sentence.", "what is one plus one?", "write a short text about the sea", "Say hi in ten words"),
        "i only know pictures of shapes and numbers. ask me about a picture!",
    ),
)  # fmt: skip
