//! TLS for our own accept loop: a certificate that was given, or one that is made at the first start and kept.
//! Not here: the loop and its limits (`server`), option names (`config`).

use crate::error::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Certificate and key of our own making, in the state folder.
const SELF_SIGNED: &str = "tls-self-signed.pem";
/// Larger files are no certificates.
const MAX_FILE: u64 = 1 << 20;

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// PEM files: the chain, and the key to its first certificate.
    Files { chain: PathBuf, key: PathBuf },
    /// Made at the first start, and kept in this folder, readable for us alone.
    SelfSigned { folder: PathBuf },
}

/// A certificate with its key, ready for connections.
#[derive(Clone)]
pub struct Tls {
    pub(super) acceptor: TlsAcceptor,
    fingerprint: String,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.fingerprint)
    }
}

impl Tls {
    /// Reads the certificate, or makes one for `names` (host names and addresses). Blocks on files.
    ///
    /// # Errors
    /// When a file can't be read or written, holds no certificate or key, or the two don't belong together.
    pub fn open(certificate: &Certificate, names: &[String]) -> Result<Self> {
        match certificate {
            Certificate::Files { chain, key } => Self::new(chain, &read(chain)?, key, &read(key)?),
            Certificate::SelfSigned { folder } => {
                let file = folder.join(SELF_SIGNED);
                if !file.exists() {
                    make(folder, &file, names)?;
                }
                let pem = read(&file)?;
                // Whoever copied it around may have left it open.
                fs::set_permissions(&file, Permissions::from_mode(0o600)).map_err(|e| cannot(&file, &e.to_string()))?;
                Self::new(&file, &pem, &file, &pem)
            }
        }
    }

    fn new(chain_file: &Path, chain: &[u8], key_file: &Path, key: &[u8]) -> Result<Self> {
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| cannot(chain_file, &format!("it is no PEM file: {e}")))?;
        let first = certificates.first().ok_or_else(|| cannot(chain_file, "it has no certificate in it"))?;
        let fingerprint = fingerprint(first);
        // Of a key nothing may be repeated, so its error is not told.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| cannot(key_file, "it has no private key in it that can be read without a password"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::internal("tls_start", e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|e| cannot(chain_file, &format!("certificate and key can't be used together: {e}")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint })
    }

    /// SHA-256 of the certificate, as browsers show it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// A client that talks to the server with exactly this certificate, and to no other; names don't matter then.
///
/// # Errors
/// When the certificate can't be read.
pub(super) fn connector(certificate: &Certificate) -> Result<TlsConnector> {
    let file = match certificate {
        Certificate::Files { chain, .. } => chain.clone(),
        Certificate::SelfSigned { folder } => folder.join(SELF_SIGNED),
    };
    let only =
        CertificateDer::from_pem_slice(&read(&file)?).map_err(|_| cannot(&file, "it has no certificate in it"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("tls_start", e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Only { certificate: only, provider }))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Trusts one certificate.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if *presented == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// True when these first bytes of a connection begin a TLS handshake.
pub(super) fn is_handshake(first: &[u8]) -> bool {
    first.first() == Some(&0x16)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(file).map_err(|e| cannot(file, &e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(cannot(file, "it is too large"));
    }
    fs::read(file).map_err(|e| cannot(file, &e.to_string()))
}

fn cannot(file: &Path, why: &str) -> Error {
    Error::invalid("tls_certificate", format!("{} can't be used for TLS: {why}", file.display()))
        .hint("TLS_CERT and TLS_KEY name PEM files; TLS=self-signed makes both in STATE_DIR")
}

/// The file appears whole or not at all, and was never readable for others.
fn make(folder: &Path, file: &Path, names: &[String]) -> Result<()> {
    let failed = |e: &dyn fmt::Display| cannot(file, &format!("a certificate can't be made: {e}"));
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(|e| failed(&e))?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Vidette");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    // Nobody vouches for it, so an end within reach would only break it one day.
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 1, 1);
    let key = rcgen::KeyPair::generate().map_err(|e| failed(&e))?;
    let certificate = params.self_signed(&key).map_err(|e| failed(&e))?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(&e))?;
    let half = file.with_extension("pem.new");
    match fs::remove_file(&half) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    let write = || {
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        out.write_all(certificate.pem().as_bytes())?;
        out.write_all(key.serialize_pem().as_bytes())?;
        out.sync_all()?;
        fs::rename(&half, file)
    };
    write().map_err(|e| failed(&e))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::with_capacity(95);
    for (i, byte) in Sha256::digest(certificate).iter().enumerate() {
        // Writing into a String can't fail.
        let _infallible = write!(text, "{}{byte:02X}", if i == 0 { "" } else { ":" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
    }

    #[test]
    fn it_is_made_once_and_for_us_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/state");
        let own = Certificate::SelfSigned { folder: folder.clone() };
        let first = Tls::open(&own, &names()).unwrap();
        assert_eq!((first.fingerprint().len(), first.fingerprint().matches(':').count()), (95, 31));
        let file = folder.join(SELF_SIGNED);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Tls::open(&own, &names()).unwrap().fingerprint(), first.fingerprint());
        assert_eq!(mode(&file), 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing half made is left");
        // Both in one file are fine as given ones too.
        let given = Certificate::Files { chain: file.clone(), key: file };
        assert_eq!(Tls::open(&given, &[]).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn files_that_are_none_say_so_and_nothing_of_a_key() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["a", "b"] {
            Tls::open(&Certificate::SelfSigned { folder: at(folder) }, &names()).unwrap();
        }
        let (a, b) = (at("a").join(SELF_SIGNED), at("b").join(SELF_SIGNED));
        fs::write(at("text"), "hello").unwrap();
        fs::write(at("bad-key"), "-----BEGIN PRIVATE KEY-----\ngeheim77\n-----END PRIVATE KEY-----\n").unwrap();
        for (chain, key, words) in [
            (at("none"), a.clone(), "none can't be used for TLS: No such file"),
            (at("text"), a.clone(), "no certificate"),
            (a.clone(), at("text"), "no private key"),
            (a.clone(), at("bad-key"), "can't be used"),
            (a.clone(), root.path().to_owned(), "can't be used"),
            (a, b, "can't be used together"),
        ] {
            let error = Tls::open(&Certificate::Files { chain, key }, &[]).unwrap_err();
            assert!(error.message.contains(words), "{error}");
            assert!(!error.to_string().contains("geheim77"), "{error}");
        }
    }
}
