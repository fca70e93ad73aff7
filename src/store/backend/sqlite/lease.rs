//! The lease of a store in SQLite: a lock on a file beside the database.

use std::{
    fs::{File, Metadata, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use sqlx::SqliteConnection;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::store::{
    error::{Result, StoreError},
    traits::Lease,
};

/// What the lease of a store is taken with.
pub enum LeaseSource {
    /// A lock on the file `path`, which the operating system releases when a process ends, however it ends. The file
    /// `database` won't do: SQLite locks it too.
    File { path: PathBuf, database: PathBuf },
    /// A lock in this process: no other one sees a store in memory, which lasts as long as this connection.
    Memory { lock: Arc<Mutex<()>>, _store: std::sync::Mutex<SqliteConnection> },
}

impl LeaseSource {
    /// Takes the lease; see [`SyncStore::lease`](crate::store::SyncStore::lease).
    pub(super) fn take(&self) -> Result<Option<Box<dyn Lease>>> {
        let (path, database) = match self {
            Self::File { path, database } => (path, database),
            Self::Memory { lock, .. } => {
                let guard: Option<OwnedMutexGuard<()>> = lock.clone().try_lock_owned().ok();
                return Ok(guard.map(|guard| Box::new(guard) as _));
            }
        };
        let file = open(path, database).map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::IsADirectory => {
                    "; remove it, or change its owner; its folder must be writable"
                }
                _ => "",
            };
            StoreError::Unusable(format!("the lock file {}: {error}{advice}", path.display()))
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(FileLease { file, path: path.clone() }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::Io(format!("{}: {error}", path.display()))),
        }
    }
}

/// Opens the lock file, and makes it if there is none.
fn open(path: &Path, database: &Path) -> io::Result<File> {
    match File::options().write(true).create_new(true).open(path) {
        Ok(file) => {
            // Made by root, it would keep out the store's owner, if files of root are not for others to read. Only a
            // new file is given away: an existing name may be a link to a file that is not the owner's.
            if let Ok(owner) = std::fs::metadata(database) {
                let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
            }
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match File::options().write(true).open(path) {
            // Another user made it. A lock needs no right to write, except over NFS: hence not always so.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => File::open(path),
            opened => opened,
        },
        Err(error) => Err(error),
    }
}

/// A lock on the file, which ends when the file is closed.
struct FileLease {
    file: File,
    path: PathBuf,
}

#[async_trait]
impl Lease for FileLease {
    async fn held(&mut self) -> bool {
        // A lock on a file that was deleted keeps no process from locking the one in its place.
        let number = |file: io::Result<Metadata>| file.ok().map(|file| (file.dev(), file.ino()));
        number(self.file.metadata()) == number(std::fs::metadata(&self.path))
    }
}

#[async_trait]
impl Lease for OwnedMutexGuard<()> {
    async fn held(&mut self) -> bool {
        true
    }
}
