"""HTML and SVG out of Python calls; every text that is not markup already is escaped."""

import html

_VOID = ("br", "input")  # elements without an end


class Markup(str):
    """Text that is markup: it is taken over as it is."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: object) -> Markup:
    """One element.

    `class_` is the attribute class, `stroke_width` is stroke-width; None leaves one out.
    """
    shown = "".join(
        f' {_attribute(key)}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """Texts and markup after each other."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(p) for p in parts))


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
