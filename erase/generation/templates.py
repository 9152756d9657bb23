"""Sentences for a set on any concept; `concept_set` puts the concept in place of ``{}``, or ``{a}`` with an article.

Twelve each: as many prompts of a concept as show that something changed in a table of a hundred comparisons.
"""

from __future__ import annotations

OBJECT = (
    "a photo of {a}",
    "{a} on a plain background",
    "a close-up of {a} in daylight",
    "a watercolor painting of {a}",
    "{a} in a quiet village street",
    "a pencil drawing of {a}",
    "{a} in the snow",
    "{a} at night under a street lamp",
    "an old photograph of {a}",
    "{a} by the sea",
    "a poster that shows {a}",
    "{a} in the middle of a meadow",
)
"""Things that are counted; mass nouns and names go into templates of their own."""
STYLE = (
    "a harbor at dawn in the style of {}",
    "a bowl of fruit in the style of {}",
    "a city street in the rain in the style of {}",
    "a portrait of a woman reading in the style of {}",
    "a field of flowers in the style of {}",
    "a dog asleep by the fire in the style of {}",
    "a mountain lake under clouds in the style of {}",
    "a market square full of people in the style of {}",
    "a sailing ship in a storm in the style of {}",
    "a kitchen table with bread and a jug in the style of {}",
    "a forest path in autumn in the style of {}",
    "an old man with a hat in the style of {}",
)
"""Artists and manners of painting."""
PERSON = (
    "a portrait of {}",
    "a photo of {} reading a book",
    "{} walking in a park",
    "{} at a desk, in daylight",
    "an oil painting of {}",
    "a pencil sketch of {}",
    "a black-and-white photo of {}",
    "{} at a market stall",
    "{} on a train, looking out of the window",
    "{} feeding birds in a town square",
    "{} in the rain under an umbrella",
    "a group photo with {} in the middle",
)
"""Named people, and descriptions that bring their own article."""
