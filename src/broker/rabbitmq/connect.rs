//! Opens one connection in bounded time.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    Connection, ConnectionProperties,
    tcp::{AsyncTcpStream, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};

use super::{error::unavailable, settings::Endpoint};
use crate::broker::BrokerError;

/// How long name resolution, TCP, TLS and the AMQP handshake may take together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects and logs in.
pub(super) async fn connect(endpoint: &Endpoint, name: &str) -> Result<Connection, BrokerError> {
    let cutter = Cutter::default();
    let attempt = handshake(endpoint.uri.clone(), name, cutter.clone());
    match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(unavailable(endpoint, &error)),
        Err(_) => {
            cutter.cut();
            let text = format!("{endpoint} did not answer within {CONNECT_TIMEOUT:?}");
            Err(BrokerError::Unavailable(text))
        }
    }
}

async fn handshake(uri: AMQPUri, name: &str, cutter: Cutter) -> lapin::Result<Connection> {
    let host = (uri.authority.host.as_str(), uri.authority.port);
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(host).await?.collect();
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime()?;
    // TLS needs no set-up here: lapin's TLS connector installs `ring` as the process's provider
    // if there is none yet.
    let reactor = runtime.clone();
    let open = async move |uri: AMQPUri, _| {
        let tcp = AsyncTcpStream::connect(&reactor, addresses.clone());
        let tcp = tokio::time::timeout(CONNECT_TIMEOUT, tcp).await.map_err(io::Error::from)??;
        #[cfg(unix)]
        if let AsyncTcpStream::Plain(socket) = &tcp {
            cutter.hold(socket.get_ref());
        }
        match uri.scheme {
            AMQPScheme::AMQP => Ok(tcp),
            AMQPScheme::AMQPS => {
                let tls = OwnedTLSConfig::default();
                Ok(tcp.into_tls(&uri.authority.host, tls.as_ref()).await?)
            }
        }
    };
    Connection::connector(uri, runtime, open, properties).await
}

/// A second handle of the socket. lapin gives every connection a thread, and during the handshake
/// nothing ends that thread when the broker accepts the connection but never speaks (stopped, for
/// example): each attempt would leave one behind. Shutting the socket down ends it.
#[derive(Clone, Default)]
struct Cutter(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    socket: Option<std::net::TcpStream>,
    cut: bool,
}

impl Cutter {
    #[cfg(unix)]
    fn hold(&self, socket: &impl std::os::fd::AsFd) {
        let Ok(duplicate) = socket.as_fd().try_clone_to_owned() else { return };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.socket = Some(duplicate.into());
        if state.cut {
            state.shut_down();
        }
    }

    fn cut(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.cut = true;
        state.shut_down();
    }
}

impl State {
    fn shut_down(&mut self) {
        if let Some(socket) = self.socket.take() {
            // It may be closed already; then there is nothing to end.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}
