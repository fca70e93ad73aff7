import java.math.BigInteger;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.ProtocolApi;
import org.openapitools.client.model.EnvelopeEpochData;
import org.openapitools.client.model.ErrorEnvelope;
import org.openapitools.client.model.MinerBlock;

/** Prints what the gateway at the address on the command line has: the miner numbers of epoch 0, and an error's status and code. */
public class Use {
    public static void main(String[] arguments) throws Exception {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        ProtocolApi api = new ProtocolApi(client);
        EnvelopeEpochData epoch = api.getEpoch(0L, "string", null, null, null, null, null);
        if (!epoch.getOk() || epoch.getErrors() != null) throw new IllegalStateException(epoch.toString());
        for (MinerBlock block : epoch.getData().getBlocks()) {
            System.out.println(new BigInteger(block.getMinerNumber()));
        }
        try {
            api.getRange(7L, 3L, "string", null, null, null, null, null, null);
        } catch (ApiException error) {
            ErrorEnvelope failed = client.getObjectMapper().readValue(error.getResponseBody(), ErrorEnvelope.class);
            System.out.println(error.getCode() + " " + failed.getErrors().getCode().getValue());
        }
    }
}
