"""Sentences for a set on any concept; `concept_set` puts the concept in place of ``{}``, or ``{a}`` with an article."""

from __future__ import annotations

OBJECT = (
    "a photo of {a}",
    "{a} on a plain background",
    "a close-up of {a} in daylight",
    "a watercolor painting of {a}",
    "{a} in a quiet village street",
)
"""Things that are counted; mass nouns and names go into templates of their own."""
STYLE = (
    "a harbor at dawn in the style of {}",
    "a bowl of fruit in the style of {}",
    "a city street in the rain in the style of {}",
    "a portrait of a woman reading in the style of {}",
    "a field of flowers in the style of {}",
    "a dog asleep by the fire in the style of {}",
)
"""Artists and manners of painting."""
PERSON = (
    "a portrait of {}",
    "a photo of {} reading a book",
    "{} walking in a park",
    "{} at a desk, in daylight",
    "an oil painting of {}",
)
"""Named people, and descriptions that bring their own article."""
