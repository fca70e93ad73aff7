// Prints what the gateway at the address on the command line has: the miner numbers of epoch 0, and an error's status and code.
import { Configuration, ErrorEnvelope, ErrorEnvelopeFromJSON, ProtocolApi, ResponseError } from "./client";

declare const process: { argv: string[]; exit(code: number): never };

async function main(address: string): Promise<void> {
    const api = new ProtocolApi(new Configuration({ basePath: address }));
    const epoch = await api.getEpoch({ epoch: 0, numbers: "string" });
    for (const block of epoch.data.blocks) {
        const number: bigint = BigInt(block.minerNumber);
        console.log(number.toString());
    }
    try {
        await api.getRange({ fromIndex: 7, toIndex: 3, numbers: "string" });
    } catch (error) {
        if (!(error instanceof ResponseError)) throw error;
        const failed: ErrorEnvelope = ErrorEnvelopeFromJSON(await error.response.json());
        console.log(error.response.status, failed.errors.code);
    }
}

main(process.argv[2]).catch((error) => {
    console.error(error);
    process.exit(1);
});
