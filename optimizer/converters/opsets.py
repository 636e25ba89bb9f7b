"""Which opset a converter makes when another one was asked for."""


def nearest(asked: int, first: int, last: int, maker: str) -> tuple[int, tuple[str, ...]]:
    """The opset to make, and a note for the report where it is not the one that was asked for."""
    made = min(max(asked, first), last)
    if made == asked:
        return made, ()
    return made, (f"opset {asked} asked, {made} made: {maker} makes {first} to {last}",)
