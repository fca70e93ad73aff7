//! What the gateway is made of, and what it never tells: the rules of `deny.toml` over the lock file and the licences,
//! without network; the commit that a build names; and secrets, which no log, error or `Debug` holds.

#[path = "supply/commit.rs"]
mod commit;
#[path = "supply/licences.rs"]
mod licences;
#[path = "supply/lock_file.rs"]
mod lock_file;
#[path = "support/process.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod process;
#[path = "supply/secrets.rs"]
mod secrets;

/// A TOML file of the repository.
fn table(name: &str) -> toml::Table {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// The texts in an array.
fn texts(array: &toml::Value) -> Vec<&str> {
    array.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}
