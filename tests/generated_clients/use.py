"""Prints what the gateway at the address on the command line has: the miner numbers of epoch 0, and an error's status and code.

`numbers` is what the parameter of that name is to be, if a second argument is there.
"""

import sys

import openapi_client
from openapi_client.exceptions import ApiException

address, *numbers = sys.argv[1:]
numbers = {"numbers": numbers[0]} if numbers else {}

with openapi_client.ApiClient(openapi_client.Configuration(host=address)) as client:
    api = openapi_client.ProtocolApi(client)
    epoch = api.get_epoch(0, **numbers)
    assert epoch.ok and epoch.errors is None, epoch
    for block in epoch.data.blocks:
        print(block.miner_number)
    try:
        api.get_range(7, 3, **numbers)
    except ApiException as error:
        assert error.data.ok is False and error.data.data is None, error.data
        print(error.status, error.data.errors.code.value)
