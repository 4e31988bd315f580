"""Text from outside, made safe to look at."""


def printable(text: str) -> str:
    r"""The text with everything that could move a cursor or hide a letter shown as an escape.

    `str.isprintable` is false for control characters, line ends, bidirectional overrides and the
    surrogates that stand for undecodable bytes. A backslash stays as it is: this is for eyes only.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
