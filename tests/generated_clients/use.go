// Prints what the gateway at the address on the command line has: the miner numbers of epoch 0, and an error's status and code.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"os"

	openapi "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func main() {
	configuration := openapi.NewConfiguration()
	configuration.Servers = openapi.ServerConfigurations{{URL: os.Args[1]}}
	api := openapi.NewAPIClient(configuration).ProtocolAPI
	epoch, _, err := api.GetEpoch(context.Background()).Epoch(0).Numbers("string").Execute()
	if err != nil || !epoch.Ok || epoch.Errors != nil {
		panic(fmt.Sprint(epoch, err))
	}
	for _, block := range epoch.Data.Blocks {
		number, ok := new(big.Int).SetString(block.MinerNumber, 10)
		if !ok {
			panic(block.MinerNumber)
		}
		fmt.Println(number)
	}
	_, response, err := api.GetRange(context.Background()).FromIndex(7).ToIndex(3).Numbers("string").Execute()
	var failed *openapi.GenericOpenAPIError
	if !errors.As(err, &failed) {
		panic(err)
	}
	fmt.Println(response.StatusCode, failed.Model().(openapi.ErrorEnvelope).Errors.Code)
}
