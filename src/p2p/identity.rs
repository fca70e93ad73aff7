//! Identity of the node: an ed25519 key pair in a file, in libp2p's protobuf encoding.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libp2p::identity::Keypair;
use tempfile::NamedTempFile;

/// Error with the identity file.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder that the file belongs into is not there.
    #[error("identity file {path}: the folder does not exist", path = .0.display())]
    NoDirectory(PathBuf),
    /// The file holds something else. It is never overwritten.
    #[error("identity file {path} is not a libp2p key pair: {reason}", path = path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// Why it does not decode.
        reason: String,
    },
    /// The file can't be read or written.
    #[error("identity file {path}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
}

/// Reads the key pair at `path`, or makes one and writes it there with mode 0600.
///
/// Two processes that start at once both get the key of the first. Blocking, and short.
///
/// # Errors
/// When the file is not a key, can't be read or written, or its folder is missing.
pub fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    match fs::read(path) {
        Ok(bytes) => decode(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(error) => Err(io_error(path, error)),
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Keypair, IdentityError> {
    if bytes.is_empty() {
        let reason = "the file is empty; remove it, and a new key is made".into();
        return Err(IdentityError::NotAKey { path: path.into(), reason });
    }
    // The library's own reason depends on what the bytes seem to be.
    let reason = "it holds no ed25519 key in libp2p's encoding".to_owned();
    let keypair =
        Keypair::from_protobuf_encoding(bytes).map_err(|_| IdentityError::NotAKey { path: path.into(), reason })?;
    let mode = fs::metadata(path).map_err(|error| io_error(path, error))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others can read the identity file: chmod 600");
    }
    Ok(keypair)
}

fn create(path: &Path) -> Result<Keypair, IdentityError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(IdentityError::NoDirectory(path.into()));
    }
    let keypair = Keypair::generate_ed25519();
    let bytes = keypair
        .to_protobuf_encoding()
        .map_err(|error| IdentityError::NotAKey { path: path.into(), reason: error.to_string() })?;
    match write_new(path, directory, &bytes) {
        Ok(()) => {
            tracing::info!(path = %path.display(), peer = %keypair.public().to_peer_id(), "made a new identity");
            Ok(keypair)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            decode(path, &fs::read(path).map_err(|error| io_error(path, error))?)
        }
        Err(error) => Err(io_error(path, error)),
    }
}

/// Writes a file with mode 0600 that must not exist: no reader sees half of it.
fn write_new(path: &Path, directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

fn io_error(path: &Path, error: io::Error) -> IdentityError {
    IdentityError::Io { path: path.into(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let first = load_or_create(&path).unwrap().public();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&path).unwrap().public(), first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the key");
    }

    #[test]
    fn processes_that_race_end_up_with_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let start = std::sync::Barrier::new(8);
        let ids: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        load_or_create(&path).unwrap().public().to_peer_id()
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn what_is_not_a_key_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(load_or_create(&path), Err(IdentityError::NotAKey { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
        let error = load_or_create(&folder.path().join("missing/identity.key")).unwrap_err();
        assert!(matches!(error, IdentityError::NoDirectory(_)), "{error}");
        assert!(matches!(load_or_create(folder.path()), Err(IdentityError::Io { .. })));
    }
}
