//! The last gate before the network: judges the address that is really contacted, as a number, at the moment of
//! connecting. Names that change their meaning, redirects, pieces, keys and sub-playlists all pass here.
//! Not here: the rules themselves (`policy`), telling people early and in plain words (`spec`, `supervisor`).

use super::policy::Policy;
use crate::error::Result;
use gio::prelude::*;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Addresses of the operator's own sources that are remembered; the oldest go.
const REMEMBERED: usize = 256;

struct Gate {
    /// For whatever is contacted; which source is behind a connection can't be told here.
    policy: Policy,
    /// What the operator named is reached even where clients may not go.
    operators: VecDeque<IpAddr>,
}

/// Process-wide, as GIO is. At first only what is never a camera is out of reach.
static GATE: LazyLock<Mutex<Gate>> =
    LazyLock::new(|| Mutex::new(Gate { policy: Policy::default(), operators: VecDeque::new() }));

fn gate() -> MutexGuard<'static, Gate> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets what clients' sources may contact.
pub fn guard_connections(policy: &Policy) {
    gate().policy = policy.clone();
}

/// Lets the addresses of a source that the operator named through.
pub(super) fn let_operator(addresses: &[SocketAddr]) {
    let operators = &mut gate().operators;
    for ip in addresses.iter().map(|address| address.ip().to_canonical()) {
        if !operators.contains(&ip) {
            if operators.len() == REMEMBERED {
                operators.pop_front();
            }
            operators.push_back(ip);
        }
    }
}

fn judge(address: SocketAddr) -> Result<()> {
    let gate = gate();
    let own = gate.operators.contains(&address.ip().to_canonical());
    Policy { private: gate.policy.private || own, ..gate.policy.clone() }.check_address(address)
}

/// A connection is about to be made. Closing its socket is what keeps it from being made.
pub(super) fn connecting(connection: &gio::SocketConnection) {
    let Some(address) = connection.remote_address().ok().and_downcast::<gio::InetSocketAddress>() else { return };
    let text = address.address().to_str();
    // A scope such as %eth0 only link-local addresses have; those are refused below as what they are without it.
    let Ok(ip) = text.split('%').next().unwrap_or_default().parse::<IpAddr>() else {
        return shut(connection, &text, "it can't be read");
    };
    if let Err(error) = judge(SocketAddr::new(ip, address.port())) {
        shut(connection, &format!("{ip} port {}", address.port()), &error.message);
    }
}

fn shut(connection: &gio::SocketConnection, address: &str, why: &str) {
    let closed = connection.socket().close().is_ok();
    if let Some(unsaid) = may_speak(&mut SAID.lock().unwrap_or_else(PoisonError::into_inner), Instant::now()) {
        tracing::warn!(address, closed, unsaid, "a video source led to an address that was not contacted: {why}");
    }
}

/// When it was said last, and how often it was not said since. A playlist may lead there many times a second.
static SAID: Mutex<(Option<Instant>, u64)> = Mutex::new((None, 0));

/// Once a second: how often it was not said before.
fn may_speak(said: &mut (Option<Instant>, u64), now: Instant) -> Option<u64> {
    if said.0.is_some_and(|last| now.saturating_duration_since(last) < Duration::from_secs(1)) {
        said.1 += 1;
        return None;
    }
    said.0 = Some(now);
    Some(std::mem::take(&mut said.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn it_speaks_once_a_second_and_counts_the_rest() {
        let (mut said, start) = ((None, 0), Instant::now());
        let spoken: Vec<_> =
            (0..25).filter_map(|i| may_speak(&mut said, start + Duration::from_millis(i * 100))).collect();
        assert_eq!(spoken, [0, 9, 9]);
    }

    #[test]
    fn gio_connects_where_it_may_and_nowhere_else() {
        super::super::init().unwrap();
        let connect = |address: &str| gio::SocketClient::new().connect_to_host(address, 80, gio::Cancellable::NONE);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        connect(&format!("127.0.0.1:{port}")).unwrap();
        connect(&format!("localhost:{port}")).unwrap();
        // 0.0.0.0 reaches this machine when it is not kept from it.
        let refused = connect(&format!("0.0.0.0:{port}")).unwrap_err();
        assert!(refused.matches(gio::IOErrorEnum::Closed), "{refused:?}");
    }
}
