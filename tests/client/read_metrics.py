"""Reads /metrics with the strict parser of Prometheus' own Python client, and looks for what a dashboard asks for."""

import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1]) as answer:
    kind = answer.headers["content-type"]
    text = answer.read().decode()
assert kind.startswith("application/openmetrics-text; version=1.0.0"), kind

families = list(text_string_to_metric_families(text))
names = [family.name for family in families]
assert len(names) == len(set(names)), "a name stands in two families"
for family in families:
    assert family.documentation, f"{family.name} has no help"
    assert family.type != "unknown", f"{family.name} has no type"

    for sample in family.samples:
        for label, value in sample.labels.items():
            # A hash has 64 digits, a peer id begins so: either would make a series of its own.
            assert len(value) < 64 and not value.startswith("12D3Koo"), (sample.name, label, value)

durations = next(family for family in families if family.name == "modal_http_request_duration_seconds")
assert durations.type == "histogram", durations.type
epochs = {"route": "/data/miner_block/epoch", "source": "store", "class": "2xx"}
counts = [sample.value for sample in durations.samples if sample.name.endswith("_count") and sample.labels == epochs]
assert counts == [3.0], durations.samples
unknown = {"route": "other", "source": "store", "class": "4xx"}
assert any(sample.labels == unknown for sample in durations.samples if sample.name.endswith("_count")), durations.samples

for name in ["modal_store_read", "modal_p2p_request", "modal_verification"]:
    family = next(family for family in families if family.name == f"{name}_duration_seconds")
    assert family.type == "histogram" and family.samples, family
reads = next(family for family in families if family.name == "modal_store_read_duration_seconds")
for name in ["modal_build_info", "process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds"]:
    assert name in names, f"no {name}"
count = next(sample.value for sample in reads.samples if sample.name.endswith("_count"))
assert count >= 1.0, reads.samples
