"""What a try of the torture may come to."""

KINDS = "tried clear silent wrong hang lost".split()


def counts() -> dict[str, int]:
    """No tries of any kind yet."""
    return dict.fromkeys(KINDS, 0)
