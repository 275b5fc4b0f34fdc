//! The last gate before the network: judges the address that is really contacted, as a number, at the moment of
//! connecting. Names that change their meaning, redirects, pieces, keys and sub-playlists all pass here.
//! Not here: the rules themselves (`policy`), telling people early and in plain words (`spec`, `supervisor`).

use super::policy::Policy;
use crate::error::Result;
use gio::prelude::*;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses of the operator's own sources that are remembered; the oldest go.
const REMEMBERED: usize = 256;

struct Gate {
    /// For whatever is contacted; which source is behind a connection can't be told here.
    policy: Policy,
    /// What the operator named is reached even where clients may not go.
    operators: VecDeque<IpAddr>,
}

/// Process-wide, as GIO is.
static GATE: Mutex<Option<Gate>> = Mutex::new(None);

fn gate() -> MutexGuard<'static, Option<Gate>> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets what clients' sources may contact. Without it only what is never a camera is out of reach.
pub fn guard_connections(policy: &Policy) {
    gate().get_or_insert_with(closed).policy = policy.clone();
}

fn closed() -> Gate {
    Gate { policy: Policy::default(), operators: VecDeque::new() }
}

/// Lets the addresses of a source that the operator named through.
pub(super) fn let_operator(addresses: &[SocketAddr]) {
    let mut gate = gate();
    let operators = &mut gate.get_or_insert_with(closed).operators;
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
    let mut gate = gate();
    let gate = gate.get_or_insert_with(closed);
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
    let closed = connection.socket().close();
    tracing::warn!(address, closed = closed.is_ok(), "a video source led to an address that was not contacted: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

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
