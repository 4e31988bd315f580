"""The short-lived helper: everything that touches bytes before they are trusted."""
