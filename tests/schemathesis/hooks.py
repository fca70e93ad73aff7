"""What the document can't say about the parameters of a request.

An anchor pins a list from the gateway's own store, so that one with `peer` is refused; so is a range that ends before it
begins. With `peer` the header `x-modal-tip` is not looked at, so that a malformed one is no error; an empty one, which its
pattern refuses, the tool sends as a valid one. Integers are `int64`, the widest format that generators of clients know, and
have no `maximum`: the gateway takes them up to 2^64-1, and the tool would try larger ones. `tests/gateway` has all of these.
"""

import schemathesis


def within_int64(value):
    if isinstance(value, dict):
        return all(map(within_int64, value.values()))
    if isinstance(value, list):
        return all(map(within_int64, value))
    if isinstance(value, str) and value.isdecimal():
        value = float(value)
    return not isinstance(value, (int, float)) or value < 2**63


def may_go_together(parameters):
    if not isinstance(parameters, dict):
        return True
    first, last = parameters.get("from_index"), parameters.get("to_index")
    numbers = isinstance(first, (int, float)) and isinstance(last, (int, float))
    together = not {"peer", "anchor"} <= parameters.keys() and not (numbers and first > last)
    return together and within_int64(parameters)


def has_odd_tip(case):
    tip = (case.headers or {}).get("x-modal-tip")
    is_ignored = isinstance(case.query, dict) and "peer" in case.query
    return tip == "" or tip is not None and is_ignored


@schemathesis.hook
def filter_query(context, query):
    """Of requests made up at random."""
    return may_go_together(query)


@schemathesis.hook
def filter_case(context, case):
    """Of edge cases, and of bodies."""
    if has_odd_tip(case):
        return False
    return all(may_go_together(parameters) for parameters in (case.query, case.body, case.path_parameters))


@schemathesis.hook
def before_add_examples(context, examples):
    """Of the document's examples, all of which are put into one request."""
    for case in examples:
        if not may_go_together(case.query):
            del case.query["peer"]
        if has_odd_tip(case):
            del case.headers["x-modal-tip"]
