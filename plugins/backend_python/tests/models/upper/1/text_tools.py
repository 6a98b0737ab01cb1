"""Beside the model, as in many repositories."""


def shout(text):
    return text.upper() + "!"
