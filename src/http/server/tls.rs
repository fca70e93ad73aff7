//! The certificate of a listener that speaks TLS, read again when its files change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    },
};

/// How often the files are read.
const READ_EVERY: Duration = Duration::from_secs(2);

/// Protocols offered to clients, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{setting}: {} can't be read", path.display())]
    Read {
        /// The setting with the file's path.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file holds no PEM of the right kind.
    #[error("{setting}: {} holds no {what} in PEM", path.display())]
    Pem {
        /// The setting with the file's path.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: pem::Error,
    },
    /// The certificate and the key don't belong together, or can't be used.
    #[error("tls_cert and tls_key can't be used together")]
    Unusable(#[source] rustls::Error),
}

/// A certificate and its key, as they are in their files.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    /// SHA-256 of both files.
    digest: [u8; 32],
}

impl Tls {
    /// Reads the certificate chain and the private key from PEM files.
    ///
    /// # Errors
    /// A file that can't be read or holds something else, or a key that is not the certificate's.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let current = RwLock::new(Current::read(&certificate, &key)?);
        Ok(Self { certificate, key, current })
    }

    /// The acceptor for the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).acceptor.clone()
    }

    /// Reads the files again at intervals, without end. Files that can't be used change nothing.
    pub(super) async fn reload_on_change(self: Arc<Self>) {
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut logged = None;
        loop {
            ticks.tick().await;
            let tls = self.clone();
            let Ok(result) = tokio::task::spawn_blocking(move || tls.reload()).await else { continue };
            let failed = result.err().map(|error| error.to_string());
            // Once for each fault, not every two seconds.
            if let Some(error) = failed.as_ref().filter(|_| logged != failed) {
                tracing::warn!(error, "the new certificate can't be used: the old one stays");
            }
            logged = failed;
        }
    }

    fn reload(&self) -> Result<(), TlsError> {
        let new = Current::read(&self.certificate, &self.key)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if new.digest != current.digest {
            *current = new;
            tracing::info!("a new certificate is in use");
        }
        Ok(())
    }
}

impl Current {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |setting, path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { setting, path: path.into(), source })
        };
        let (chain_pem, key_pem) = (read("tls_cert", certificate)?, read("tls_key", key)?);
        let invalid = |setting, path: &Path, what, source| TlsError::Pem { setting, path: path.into(), what, source };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain_pem).collect();
        let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
        let chain = chain.map_err(|source| invalid("tls_cert", certificate, "certificate", source))?;
        let private = PrivateKeyDer::from_pem_slice(&key_pem);
        let private = private.map_err(|source| invalid("tls_key", key, "private key", source))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        // With the length, bytes moved from one file to the other change the digest.
        let digest = Sha256::new_with_prefix(chain_pem.len().to_le_bytes());
        let digest = digest.chain_update(chain_pem).chain_update(key_pem).finalize().into();
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), digest })
    }
}
