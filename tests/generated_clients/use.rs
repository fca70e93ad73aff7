//! Prints what the gateway at the address on the command line has: the miner numbers of epoch 0, and an error's status
//! and code.

use openapi::apis::{Error, configuration::Configuration, protocol_api};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let base_path = std::env::args().nth(1).unwrap();
    let configuration = Configuration { base_path, ..Configuration::default() };
    let epoch = protocol_api::get_epoch(&configuration, 0, "string", None, None, None, None, None).await.unwrap();
    assert!(epoch.ok && epoch.errors.is_none(), "{epoch:?}");
    for block in epoch.data.blocks {
        println!("{}", block.miner_number.parse::<u64>().unwrap());
    }
    let refused = protocol_api::get_range(&configuration, 7, 3, "string", None, None, None, None, None, None).await;
    let Err(Error::ResponseError(answer)) = refused else { panic!("{refused:?}") };
    let Some(protocol_api::GetRangeError::Status400(failed)) = answer.entity else { panic!("{answer:?}") };
    println!("{} {}", answer.status.as_u16(), failed.errors.code);
}
