"""What the document can't say about the parameters of one request together.

An anchor pins a list from the gateway's own store, so that one with `peer` is refused; so is a range that ends before it
begins. `tests/gateway` has both.
"""

import schemathesis


def may_go_together(parameters):
    if not isinstance(parameters, dict):
        return True
    first, last = parameters.get("from_index"), parameters.get("to_index")
    numbers = isinstance(first, (int, float)) and isinstance(last, (int, float))
    return not {"peer", "anchor"} <= parameters.keys() and not (numbers and first > last)


@schemathesis.hook
def filter_query(context, query):
    """Of requests made up at random."""
    return may_go_together(query)


@schemathesis.hook
def filter_case(context, case):
    """Of edge cases, and of bodies."""
    return may_go_together(case.query) and may_go_together(case.body)


@schemathesis.hook
def before_add_examples(context, examples):
    """Of the document's examples, all of which are put into one request."""
    for case in examples:
        if not may_go_together(case.query):
            del case.query["peer"]
