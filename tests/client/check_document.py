"""Checks the OpenAPI document named on the command line: valid 3.1, and each example as its schema says."""

import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
assert document["openapi"].startswith("3.1."), document["openapi"]
OpenAPIV31SpecValidator(document).validate()

# Examples hold what the schemas name and nothing else.
components = json.loads(json.dumps(document["components"]))
for schema in components["schemas"].values():
    if "properties" in schema:
        schema["additionalProperties"] = False

checked = 0


def check(place, schema, example):
    global checked
    validator = Draft202012Validator({**schema, "components": components})
    errors = [f"{place}: {error.json_path}: {error.message}" for error in validator.iter_errors(example)]
    assert not errors, "\n".join(errors)
    checked += 1


for path, item in document["paths"].items():
    for method, operation in item.items():
        place = f"{method} {path}"
        for parameter in operation.get("parameters", []):
            if "example" in parameter:
                check(f"{place} {parameter['name']}", parameter["schema"], parameter["example"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            check(f"{place} body", content["schema"], content["example"])
        for status, response in operation["responses"].items():
            for kind, content in response.get("content", {}).items():
                # A stream has no schema.
                if kind != "text/event-stream":
                    check(f"{place} {status}", content["schema"], content["example"])
for name, header in components["headers"].items():
    check(f"header {name}", header["schema"], header["example"])
assert checked > 200, checked
