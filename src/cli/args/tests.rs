//! The help and the settings agree.

use clap::CommandFactory;

use super::*;
use crate::config::Config;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_tells_the_true_defaults() {
    let help = Cli::command().render_long_help().to_string();
    let joined = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let config = Config::default();
    let Config { database_url, http, admin, listen, identity, network, verify, .. } = config;
    for default in [
        database_url.to_string(),
        http.to_string(),
        admin.to_string(),
        format!("{} and {}", listen[0], listen[1]),
        identity.display().to_string(),
        network.name,
        verify.to_string(),
        "text".into(),
    ] {
        assert!(joined.contains(&format!("[default: {default}]")), "{default} in {joined}");
    }
    for (flag, default) in [
        ("sync", config.sync.to_string()),
        ("sync-interval", format!("{}s", config.sync_interval.as_secs())),
        ("pow-threads", config.pow_threads.to_string()),
        ("pow-memory", config.pow_memory.to_string()),
        ("mdns", config.mdns.to_string()),
        ("target-peers", config.target_peers.to_string()),
    ] {
        let about = joined.split(&format!("--{flag} <")).nth(1).unwrap();
        let told = about.split("[default: ").nth(1).unwrap();
        assert!(told.starts_with(&format!("{default}]")), "{flag}: {told}");
    }
}
