"""What may be said as an array: items in order, different ones, some of a kind."""

from falsework.grammars.expressions import NFA, Expression


def items_grammar(
    prefix: list[Expression | None], rest: Expression | None, low: int, high: int | None
) -> Expression | None:
    """Say an array: the first items each as its own, then any number of others."""
    first = next((n for n, one in enumerate(prefix) if one is None), None)
    if first is not None:
        prefix, rest = prefix[:first], None
    if rest is None:
        high = len(prefix) if high is None else min(high, len(prefix))
    if high is not None and low > high:
        return None
    prefix = prefix if high is None else prefix[:high]

    def add(net: NFA, start: int) -> int:
        end = net.add_node()
        node = net.literal(start, b"[")
        for count in range(max(len(prefix), low, high or 0) + 1):
            if count >= low:
                net.jumps.append((node, end))
            if count == high:
                break
            item = prefix[count] if count < len(prefix) else rest
            assert item is not None
            if high is None and count >= max(len(prefix), low):
                _add_endless(net, node, item, end, first=count == 0)
                break
            entry = net.literal(node, b", " if count else b"")
            if not count:
                entry = net.add_node()
                net.jumps.append((node, entry))
            node = item(net, entry)
        return net.literal(end, b"]")

    return add


def _add_endless(net: NFA, node: int, item: Expression, end: int, *, first: bool) -> None:
    entry = net.add_node()
    net.jumps.append((node if first else net.literal(node, b", "), entry))
    behind = item(net, entry)
    net.jumps.append((behind, end))
    net.jumps.append((net.literal(behind, b", "), entry))


def subsets_grammar(values: list[Expression], low: int, high: int | None) -> Expression | None:
    """Say an array of some of the values, in any order, each at most once."""
    most = len(values) if high is None else min(high, len(values))
    if low > most:
        return None

    def add(net: NFA, start: int) -> int:
        end = net.add_node()
        nodes = {0: net.literal(start, b"[")}
        for used in range(1 << len(values)):
            count = used.bit_count()
            if used not in nodes or count > most:
                continue
            if count >= low:
                net.jumps.append((nodes[used], end))
            if count == most:
                continue
            entry = net.literal(nodes[used], b", ") if used else nodes[used]
            for number, value in enumerate(values):
                following = used | 1 << number
                if following != used:
                    target = nodes.setdefault(following, -1)
                    if target < 0:
                        target = nodes[following] = net.add_node()
                    net.jumps.append((value(net, entry), target))
        return net.literal(end, b"]")

    return add


def containing_grammar(
    positions: list[tuple[Expression | None, Expression | None]],
    low: int,
    high: int | None,
    least: int,
    most: int | None,
) -> Expression:
    """Say an array with `least` to `most` items of one kind: (that kind, other) by position.

    The last position stands for all further ones.
    """
    last = len(positions) - 1
    counted = least if most is None else most

    def add(net: NFA, start: int) -> int:
        end = net.add_node()
        nodes = {(0, 0): net.literal(start, b"[")}
        opened = net.add_node()
        net.jumps.append((nodes[0, 0], opened))
        queue = [(0, 0)]
        for place in queue:
            count, found = place
            if count >= low and found >= least:
                net.jumps.append((nodes[place], end))
            if high is not None and count >= high:
                continue
            following = min(count + 1, last) if high is None else count + 1
            entry = net.literal(nodes[place], b", ") if place != (0, 0) else opened
            for kind, item in enumerate(positions[min(count, last)]):
                counts = found if kind else found + 1
                if item is None or (most is not None and counts > most):
                    continue
                target = (following, min(counts, counted))
                if target not in nodes:
                    nodes[target] = net.add_node()
                    queue.append(target)
                begun = net.add_node()
                net.jumps.append((entry, begun))
                net.jumps.append((item(net, begun), nodes[target]))
        return net.literal(end, b"]")

    return add
