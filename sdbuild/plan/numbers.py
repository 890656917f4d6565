"""Numbers as key documents hold them: a float can be written in two ways, integers and decimal strings cannot."""


def decimal(weight: float) -> str:
    """A LoRA's weight as key documents hold it: a float can be written in two ways."""
    return repr(weight).removesuffix(".0")


def exact(value: float) -> int | str:
    """A number as key documents hold it: floats can be written in two ways, integers and decimal strings cannot."""
    return int(value) if value == int(value) else repr(value)
