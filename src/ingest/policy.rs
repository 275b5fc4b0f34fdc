//! What may be opened: kinds of sources, folders of files, and the addresses that may be contacted.
//! Not here: what a source string means (`spec`), opening anything (`pipeline`).
//!
//! Addresses are judged as numbers, after resolution, because a name or an odd spelling can stand for any of them.

use super::spec::{FORMS, bad};
use crate::error::{Error, Kind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Component, Path, PathBuf};
use url::{Host, Url};

/// Where cloud machines hand out their own credentials, beside the link-local addresses. No camera lives there.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Which files may be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Files {
    /// Any that the process can read.
    #[default]
    Any,
    /// Those that are, or lie under, one of these, links resolved. A relative path is looked for in the first one too.
    Under(Vec<PathBuf>),
    /// None.
    Nowhere,
}

/// Which sources may be opened. The default is an operator's: all kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// RTSP and HTTP addresses.
    pub network: bool,
    /// Addresses of this machine and of private networks, where most cameras are.
    pub private: bool,
    /// Our own server's port, which no source may lead to.
    pub own_port: Option<u16>,
    /// Files.
    pub files: Files,
    /// V4L2 devices.
    pub devices: bool,
    /// Test pictures.
    pub test: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { network: true, private: true, own_port: None, files: Files::Any, devices: true, test: true }
    }
}

impl Policy {
    /// Tells whether `url` may be contacted, as far as that can be told without resolving its name.
    ///
    /// # Errors
    /// Denied, with the reason.
    pub fn check_url(&self, url: &Url) -> Result<()> {
        if !matches!(url.scheme(), "rtsp" | "rtsps" | "http" | "https") {
            return Err(denied(&format!("{}: addresses are not allowed", url.scheme())).hint(FORMS));
        }
        allow(self.network, "network addresses")?;
        match host(url)? {
            Host::Ipv4(ip) => self.check_address(SocketAddr::new(ip.into(), port(url))),
            Host::Ipv6(ip) => self.check_address(SocketAddr::new(ip.into(), port(url))),
            Host::Domain(_) => Ok(()),
        }
    }

    /// Tells whether `url` may be contacted, and under which addresses; its name is resolved here, which may take
    /// seconds. One forbidden address among many forbids all: whoever owns the name decides which is taken.
    ///
    /// # Errors
    /// Denied, with the reason; Unavailable when the name can't be resolved.
    pub fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>> {
        self.check_url(url)?;
        let port = port(url);
        let found: Vec<SocketAddr> = match host(url)? {
            Host::Ipv4(ip) => vec![(ip, port).into()],
            Host::Ipv6(ip) => vec![(ip, port).into()],
            Host::Domain(name) => (name.as_str(), port)
                .to_socket_addrs()
                .map_err(|_| Error::unavailable("source_name_unknown", format!("no address is known for {name}")))?
                .collect(),
        };
        found.iter().try_for_each(|address| self.check_address(*address))?;
        Ok(found)
    }

    /// Tells whether this address may be contacted.
    ///
    /// # Errors
    /// Denied, with the reason.
    pub fn check_address(&self, address: SocketAddr) -> Result<()> {
        let ip = plain(address.ip());
        if is_never_a_camera(ip) {
            return Err(denied(
                "that address is link-local, multicast or a cloud's metadata service, which is no camera",
            ));
        }
        if !self.private && is_private(ip) {
            return Err(denied("addresses of this machine and of private networks are not allowed as a source here")
                .hint("ALLOW_PRIVATE_SOURCES=true allows them"));
        }
        // Any address can be this machine's; only those can be bound.
        if self.own_port == Some(address.port()) && (ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()) {
            return Err(denied("that address is this program's own"));
        }
        Ok(())
    }

    /// Tells whether a file may be opened, with every link in its path resolved.
    ///
    /// # Errors
    /// NotFound when there is no such file, Denied when it is outside of the allowed folders, whether it is there or not.
    pub fn check_file(&self, file: &Path) -> Result<PathBuf> {
        let Files::Under(roots) = &self.files else {
            allow(self.files == Files::Any, "files")?;
            return file.canonicalize().map_err(|error| not_there(file, &error));
        };
        let inside = roots.first().filter(|_| file.is_relative()).map(|root| root.join(file));
        let under = |file: &Path, roots: &[PathBuf]| roots.iter().any(|root| file.starts_with(root));
        let real_roots: Vec<_> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
        for candidate in [Some(file), inside.as_deref()].into_iter().flatten() {
            if let Ok(real) = candidate.canonicalize()
                && under(&real, &real_roots)
            {
                return Ok(real);
            }
        }
        // "Not there" is said of places within the folders only, or answers would tell what lies outside of them.
        let wanted = inside.as_deref().unwrap_or(file);
        let stays = !wanted.components().any(|part| part == Component::ParentDir);
        let nearest = wanted.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok());
        if stays && std::fs::symlink_metadata(wanted).is_err() && nearest.is_some_and(|n| under(&n, &real_roots)) {
            return Err(not_there(file, &std::io::ErrorKind::NotFound.into()));
        }
        Err(denied("that file is outside of the folder whose files may be opened from here")
            .hint("put it into MEDIA_DIR, or name it on the command line or in the configuration file"))
    }
}

fn not_there(file: &Path, error: &std::io::Error) -> Error {
    Error::not_found("source_file_not_found", format!("the file {} can't be found: {error}", file.display()))
}

pub(super) fn denied(message: &str) -> Error {
    Error::new(Kind::Denied, "source_not_allowed", message)
}

pub(super) fn allow(allowed: bool, what: &str) -> Result<()> {
    allowed.then_some(()).ok_or_else(|| denied(&format!("{what} are not allowed as a source here")))
}

/// The host of `url` as the resolver would read it: an `rtsp://` host is kept as it was written, and 0xa9fea9fe is an
/// address.
fn host(url: &Url) -> Result<Host<String>> {
    let written = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("the address has no host in it"))?;
    match Host::parse(written) {
        Ok(Host::Domain(name)) if name.trim_matches('.').is_empty() => Err(bad("the address has no host in it")),
        Ok(host) => Ok(host),
        Err(_) => Err(bad("the host in the address can't be read")),
    }
}

fn port(url: &Url) -> u16 {
    let usual = match url.scheme() {
        "rtsp" => 554,
        "rtsps" => 322,
        "https" => 443,
        _ => 80,
    };
    url.port().unwrap_or(usual)
}

/// The IPv4 address that an IPv6 one stands for, where it does: mapped, compatible, NAT64, 6to4.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        _ => ip,
    }
}

fn is_never_a_camera(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            first == 0 || first >= 224 || ip.is_link_local() || METADATA_V4.contains(&ip)
        }
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() || ip == METADATA_V6,
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            // Beside RFC 1918: carriers' own networks, and those for measuring.
            let further =
                (a == 100 && b & 0xc0 == 64) || (a == 198 && b & 0xfe == 18) || (a == 192 && b == 0 && c == 0);
            ip.is_loopback() || ip.is_private() || further
        }
        // Unique local, and the site-local ones that were before them.
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.segments()[0] & 0xffc0 == 0xfec0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::SourceSpec;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_policy_closes_kinds() {
        let closed = Policy { network: false, files: Files::Nowhere, devices: false, test: false, ..Policy::default() };
        for text in ["rtsp://h/", "http://h/", "file:///etc/passwd", "/etc/passwd", "a.mp4", "0", "test:"] {
            assert_eq!(SourceSpec::parse(text, &closed).unwrap_err().kind, Kind::Denied, "{text}");
        }
    }

    #[test]
    fn a_file_outside_of_the_roots_is_refused_even_through_a_link() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inside = root.path().join("a.mp4");
        std::fs::write(&inside, b"x").unwrap();
        let named = other.path().join("named.mp4");
        std::fs::write(&named, b"x").unwrap();
        std::fs::write(other.path().join("secret"), b"x").unwrap();
        for (link, to) in [("link.mp4", "/etc/passwd"), ("up", "..")] {
            std::os::unix::fs::symlink(to, root.path().join(link)).unwrap();
        }
        let policy = Policy { files: Files::Under(vec![root.path().to_owned(), named.clone()]), ..Policy::default() };
        let judge = |file: &Path| policy.check_file(file).map_err(|e| e.kind);
        assert_eq!(judge(&inside), Ok(inside.canonicalize().unwrap()));
        assert_eq!(judge(Path::new("a.mp4")), Ok(inside.canonicalize().unwrap()));
        assert_eq!(judge(&named), Ok(named.canonicalize().unwrap()), "the operator named it");
        assert_eq!(judge(&root.path().join("none")), Err(Kind::NotFound));
        assert_eq!(judge(Path::new("none")), Err(Kind::NotFound));
        for outside in [
            root.path().join("link.mp4"),
            root.path().join("up/etc/passwd"),
            root.path().join("../etc/passwd"),
            other.path().join("secret"),
            "/etc/passwd".into(),
            "/etc/no-such-file".into(),
            "../../../../etc/passwd".into(),
            "Cargo.toml".into(),
        ] {
            let kind = judge(&outside);
            // A file of the working folder is not there when it is looked for in the media folder.
            assert!(kind == Err(Kind::Denied) || (outside == Path::new("Cargo.toml") && kind.is_err()), "{outside:?}");
        }
    }

    /// One address in every spelling that some resolver takes.
    #[test]
    fn metadata_is_refused_in_every_spelling() {
        for host in [
            "169.254.169.254",
            "169.254.0.1",
            "0xa9fea9fe",
            "0xA9.0xFE.0xA9.0xFE",
            "2852039166",
            "0251.0376.0251.0376",
            "169.254.43518",
            "169.16689662",
            "169.254.169.254.",
            "%31%36%39.254.169.254",
            "１６９.254.169.254",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[2002:a9fe:a9fe::1]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "100.100.100.200",
            "0.0.0.0",
            "0",
            "[::]",
            "255.255.255.255",
            "224.0.0.1",
            "[ff02::1]",
            "0x0.1",
        ] {
            for scheme in ["rtsp", "rtsps", "http", "https"] {
                let error = SourceSpec::parse(&format!("{scheme}://{host}/latest/meta-data"), &Policy::default());
                assert_eq!(error.unwrap_err().kind, Kind::Denied, "{scheme}://{host}");
            }
        }
    }

    #[test]
    fn private_addresses_are_allowed_until_an_operator_says_no() {
        let closed = Policy { private: false, ..Policy::default() };
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f000001",
            "127.0.0.2",
            "10.1.2.3",
            "172.16.0.9",
            "172.31.255.1",
            "192.168.1.20",
            "100.64.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[fd12::1]",
            "[fec0::1]",
        ] {
            let url = format!("rtsp://{host}/live");
            assert!(SourceSpec::parse(&url, &Policy::default()).is_ok(), "{host}");
            assert_eq!(SourceSpec::parse(&url, &closed).unwrap_err().kind, Kind::Denied, "{host}");
        }
        for host in ["8.8.8.8", "172.32.0.1", "[2606:4700::1]", "cam.example"] {
            assert!(SourceSpec::parse(&format!("rtsp://{host}/"), &closed).is_ok(), "{host}");
        }
        // A name is judged by what it stands for.
        let url = Url::parse("http://localhost/x").unwrap();
        assert_eq!(closed.resolve(&url).unwrap_err().kind, Kind::Denied);
        assert!(Policy::default().resolve(&url).is_ok());
    }

    #[test]
    fn no_source_leads_back_to_ourselves() {
        let policy = Policy { own_port: Some(8199), ..Policy::default() };
        for url in
            ["http://127.0.0.1:8199/api/mjpeg", "http://127.9.9.9:8199/", "http://[::1]:8199/", "rtsp://127.1:8199/"]
        {
            assert_eq!(SourceSpec::parse(url, &policy).unwrap_err().kind, Kind::Denied, "{url}");
        }
        let name = Url::parse("http://localhost:8199/api/mjpeg").unwrap();
        assert_eq!(policy.resolve(&name).unwrap_err().kind, Kind::Denied);
        for url in ["http://127.0.0.1:8198/", "http://192.0.2.1:8199/"] {
            assert!(SourceSpec::parse(url, &policy).is_ok(), "{url}");
        }
    }

    proptest! {
        #[test]
        fn an_address_and_its_ipv6_disguises_are_judged_alike(bits in any::<u32>(), port in 1u16..) {
            let v4 = Ipv4Addr::from_bits(bits);
            let policy = Policy { private: false, ..Policy::default() };
            let judged = |ip: IpAddr| policy.check_address(SocketAddr::new(ip, port)).is_ok();
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            prop_assert_eq!(judged(v4.into()), judged(v4.to_ipv6_mapped().into()));
            prop_assert_eq!(judged(v4.into()), judged(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into()));
            prop_assert_eq!(judged(v4.into()), judged(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into()));
        }
    }
}
