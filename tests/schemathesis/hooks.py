"""What the document can't say about the parameters of one request together.

An anchor pins a list from the gateway's own store, so that one with `peer` is refused; `tests/gateway` has that.
"""

import schemathesis


def may_go_together(query):
    return not {"peer", "anchor"} <= (query or {}).keys()


@schemathesis.hook
def filter_query(context, query):
    """Of requests made up at random."""
    return may_go_together(query)


@schemathesis.hook
def filter_case(context, case):
    """Of edge cases."""
    return may_go_together(case.query)


@schemathesis.hook
def before_add_examples(context, examples):
    """Of the document's examples, all of which are put into one request."""
    for case in examples:
        if not may_go_together(case.query):
            del case.query["peer"]
