"""Words for errno values that mean something special here."""

import errno

_WORDS = {
    errno.ELOOP: "a symbolic link is in the way",
    errno.EXDEV: "the path leads out of where it may lead",
    errno.ENODEV: "this kernel does not know the file system type",
    errno.EBUSY: "it is in use",
}


def in_words(error: OSError) -> str:
    """The reason of a failed system call, as the second half of "cannot X: reason"."""
    if error.errno in _WORDS:
        return _WORDS[error.errno]
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
