"""Parts of expressions that are compiled by themselves, once, where they are first needed."""

from falsework.grammars.expressions import NFA, Expression, Fragment


def precompiled(part: Expression) -> Expression:
    """The part, without counted loops, as a leaf that is compiled when it is first said."""
    kept: list[Fragment] = []

    def add(net: NFA, start: int) -> int:
        if not kept:
            from falsework.grammars.dfa import compile_leaf  # noqa: PLC0415 - it loads numba

            kept.append(compile_leaf(part))
        return net.embed(start, kept[0])

    return add
